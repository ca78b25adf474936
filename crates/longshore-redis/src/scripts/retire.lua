-- Deletes a partition that holds nothing.
--
-- KEYS[1]  the stream
-- KEYS[2]  the delayed messages
-- KEYS[3]  the dead letters
-- KEYS[4]  the list that wakes the promoter
-- ARGV[1]  1: only look
-- returns  1 it holds nothing, 0 it does
--
-- The token stays, so that it goes on growing should the partition ever be made again.
if redis.call('XLEN', KEYS[1]) > 0 or redis.call('ZCARD', KEYS[2]) > 0 or redis.call('XLEN', KEYS[3]) > 0 then
  return 0
end
if ARGV[1] ~= '1' then
  redis.call('DEL', KEYS[1], KEYS[3], KEYS[4])
end
return 1
