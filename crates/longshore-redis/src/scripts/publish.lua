-- Stores a message and takes its id for it, or neither where the id is known inside the window.
--
-- KEYS[1]  the stream
-- KEYS[2]  the mark of the id
-- KEYS[3]  the delayed messages
-- KEYS[4]  the list that wakes the promoter
-- ARGV[1]  ms until the mark is given up, counted from when the message is there
-- ARGV[2]  the name of the hold, which is also in the message
-- ARGV[3]  ms to wait
-- ARGV[4…] the fields; where it waits, the packed message
-- returns  1 stored, 0 no such queue, 2 the id is known
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 2
end
local wait = tonumber(ARGV[3])
-- The message is the first write, so that a full server refuses it and no mark stays behind.
if wait == 0 then
  redis.call('XADD', KEYS[1], '*', unpack(ARGV, 4))
else
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.ceil(tonumber(time[2]) / 1000)
  redis.call('ZADD', KEYS[3], string.format('%d', now + wait), ARGV[4])
end
redis.call('SET', KEYS[2], 'h' .. ARGV[2], 'PX', string.format('%d', tonumber(ARGV[1]) + wait))
if wait > 0 and redis.call('ZRANGE', KEYS[3], 0, 0)[1] == ARGV[4] and redis.pcall('LLEN', KEYS[4]) == 0 then
  redis.pcall('LPUSH', KEYS[4], '1')
end
return 1
