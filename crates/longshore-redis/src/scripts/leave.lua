-- Deletes consumers that hold nothing: deleting one that does would lose its entries.
--
-- KEYS[1]  the stream
-- ARGV[1]  the group
-- ARGV[2]  a consumer to delete whatever its age, or empty
-- ARGV[3]  ms without a sign of life after which any other is deleted, or 0 for none
-- returns  how many were deleted
local deleted = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local seen = {}
  for i = 1, #consumer, 2 do
    seen[consumer[i]] = consumer[i + 1]
  end
  local old = tonumber(ARGV[3]) > 0 and seen.idle > tonumber(ARGV[3])
  if seen.pending == 0 and seen.name ~= '_returned' and (seen.name == ARGV[2] or old) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], seen.name)
    deleted = deleted + 1
  end
end
return deleted
