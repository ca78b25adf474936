-- Removes entries of a partition, for whoever owns it.
--
-- KEYS[1]  the stream
-- KEYS[2]  the lease
-- ARGV[1]  the group
-- ARGV[2]  who owns it
-- ARGV[3…] ids
-- returns  per id: 1 removed, 0 not theirs any more, -1 not pending
local owned = redis.call('GET', KEYS[2]) == ARGV[2]
local answers = {}
for i = 3, #ARGV do
  local answer = 0
  if owned then
    answer = redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
    if answer == 1 then
      redis.call('XDEL', KEYS[1], ARGV[i])
    else
      answer = -1
    end
  end
  answers[#answers + 1] = answer
end
return answers
