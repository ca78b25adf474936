-- Changes the marks of ids, each as far as it is the writer's.
--
-- KEYS     the marks
-- ARGV     per mark four values: change, owner, value, ms
-- returns  how many
for i, key in ipairs(KEYS) do
  change_mark(key, ARGV[i * 4 - 3], ARGV[i * 4 - 2], ARGV[i * 4 - 1], ARGV[i * 4])
end
return #KEYS
