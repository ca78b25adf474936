-- Settles one entry of a partition together with the state of its session and the mark of its id, for
-- whoever owns it.
--
-- KEYS[1]  the stream
-- KEYS[2]  the lease
-- KEYS[3]  the dead letters
-- KEYS[4]  the fencing token
-- KEYS[5…] the mark of the id, where it changes; the session, where its state is written
-- ARGV[1]  the group
-- ARGV[2]  who owns it
-- ARGV[3]  the id
-- ARGV[4]  `complete`, `release` or `dead`
-- ARGV[5]  consumer that holds what is released; the reason of a dead letter
-- ARGV[6]  its count; the detail
-- ARGV[7]  the attempts of a dead letter
-- ARGV[8]  the physical queue it comes from
-- ARGV[9]  what becomes of the mark; empty where it does not change
-- ARGV[10] its owner
-- ARGV[11] its value
-- ARGV[12] ms that it lasts
-- ARGV[13] the token of a state; empty where none is written
-- ARGV[14] the message it was written for
-- ARGV[15] the state; left out where it is cleared
-- returns  1 done, 0 not theirs any more, -1 not pending or deleted
if redis.call('GET', KEYS[2]) ~= ARGV[2] then
  return 0
end
local marks, writes = ARGV[9] ~= '', ARGV[13] ~= ''
if writes and is_smaller(ARGV[13], redis.call('GET', KEYS[4]) or '0') then
  return 0
end
if not redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)[1] then
  return -1
end
-- A first write that needs no memory lets the rest pass on a full server.
redis.call('XACK', KEYS[1], ARGV[1], '0-0')
local dead, entry = ARGV[4] == 'dead', nil
if dead or (marks and ARGV[9] ~= 'done') then
  entry = redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3])[1]
  if not entry then
    redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
    return -1
  end
end
-- What can be written twice comes first.
if writes then
  write_state(KEYS[#KEYS], ARGV[14], ARGV[15])
end
if marks then
  change_mark(KEYS[5], ARGV[9], ARGV[10], ARGV[11], ARGV[12], hold_of(entry and entry[2] or {}))
end
if ARGV[4] == 'release' then
  -- In its place, for the next owner.
  redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[5], 0, ARGV[3], 'RETRYCOUNT', ARGV[6], 'JUSTID')
  return 1
end
if dead then
  set_aside(KEYS[3], entry[2], ARGV[5], ARGV[6], ARGV[7], ARGV[8])
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('XDEL', KEYS[1], ARGV[3])
return 1
