-- Lets a claim last from now.
--
-- KEYS[1]  the lease
-- ARGV[1]  who has it
-- ARGV[2]  ms it lasts
-- returns  1 done, 0 not theirs any more
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
