-- Lets leases on ids last longer.
--
-- KEYS     their marks
-- ARGV[1]  ms of the lease
-- ARGV[2…] per id its owner
-- returns  per id: 1 renewed, 0 not theirs any more
local answers = {}
for i, key in ipairs(KEYS) do
  local mark = redis.pcall('GET', key)
  if type(mark) == 'string' and string.match(mark, '^r%d+:(.*)$') == ARGV[i + 1] then
    answers[i] = redis.call('PEXPIRE', key, ARGV[1])
  else
    answers[i] = 0
  end
end
return answers
