-- Renews locks.
--
-- KEYS[1]  the stream
-- ARGV[1]  the group
-- ARGV[2]  the consumer
-- ARGV[3…] ids, at most 500
-- returns  per id: 1 renewed, 0 not ours any more
local answers, ours = {}, {}
for i = 3, #ARGV do
  local seen = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)[1]
  if seen and seen[2] == ARGV[2] then
    ours[#ours + 1] = ARGV[i]
    answers[#answers + 1] = 1
  else
    answers[#answers + 1] = 0
  end
end
if #ours > 0 then
  ours[#ours + 1] = 'JUSTID'
  redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, unpack(ours))
end
return answers
