-- Sets an entry aside: the stored fields as they are, then ours.
--
-- KEYS[1]  the stream
-- KEYS[2]  the dead letters
-- KEYS[3]  the mark of its id; or left out
-- ARGV[1]  the group
-- ARGV[2]  the consumer
-- ARGV[3]  the id
-- ARGV[4]  reason
-- ARGV[5]  detail
-- ARGV[6]  attempts
-- ARGV[7]  the physical queue it comes from
-- ARGV[8…] with a mark: change, owner, value, ms
-- returns  1 done, 0 somebody else's, -1 not pending or deleted
local seen = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)[1]
if not seen then
  return -1
end
if seen[2] ~= ARGV[2] then
  return 0
end
-- A first write that needs no memory lets the rest pass on a full server.
redis.call('XACK', KEYS[1], ARGV[1], '0-0')
local entry = redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3])[1]
if not entry then
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
  return -1
end
set_aside(KEYS[2], entry[2], ARGV[4], ARGV[5], ARGV[6], ARGV[7])
if KEYS[3] then
  change_mark(KEYS[3], ARGV[8], ARGV[9], ARGV[10], ARGV[11], hold_of(entry[2]))
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('XDEL', KEYS[1], ARGV[3])
return 1
