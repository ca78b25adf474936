-- Reads what nobody has read, for whoever owns the partition.
--
-- KEYS[1]  the stream
-- KEYS[2]  the lease
-- ARGV[1]  the group
-- ARGV[2]  who owns it
-- ARGV[3]  the consumer
-- ARGV[4]  entries at most
-- ARGV[5]  the last id that the owner knows to be delivered
-- returns  the reply of XREADGROUP; 0 not theirs any more; 1 more was delivered than they know
--
-- A read that waits on the server would take entries even after its owner has lost the partition,
-- and one whose connection broke may be carried out late. So no read waits, and each names the
-- place where it goes on.
if redis.call('GET', KEYS[2]) ~= ARGV[2] then
  return 0
end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local seen = {}
  for i = 1, #group, 2 do
    seen[group[i]] = group[i + 1]
  end
  if seen.name == ARGV[1] and seen['last-delivered-id'] ~= ARGV[5] then
    return 1
  end
end
return redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[3], 'COUNT', ARGV[4], 'STREAMS', KEYS[1], '>')
