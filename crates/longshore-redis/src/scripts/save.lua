-- Writes the state of a session.
--
-- KEYS[1]  the session
-- KEYS[2]  the fencing token of its scope
-- ARGV[1]  the writer's token
-- ARGV[2]  the message it was written for
-- ARGV[3]  the state; left out where it is cleared
-- returns  1 written, 0 a larger token was granted
if is_smaller(ARGV[1], redis.call('GET', KEYS[2]) or '0') then
  return 0
end
write_state(KEYS[1], ARGV[2], ARGV[3])
return 1
