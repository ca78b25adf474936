-- Removes entries that are still ours.
--
-- KEYS[1]  the stream
-- ARGV[1]  the group
-- ARGV[2]  the consumer
-- ARGV[3…] ids
-- returns  per id: 1 removed, 0 somebody else's, -1 not pending
local answers = {}
for i = 3, #ARGV do
  local seen = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)[1]
  if not seen then
    answers[#answers + 1] = -1
  elseif seen[2] ~= ARGV[2] then
    answers[#answers + 1] = 0
  else
    redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
    redis.call('XDEL', KEYS[1], ARGV[i])
    answers[#answers + 1] = 1
  end
end
return answers
