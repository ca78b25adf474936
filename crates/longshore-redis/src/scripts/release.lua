-- Gives entries back that no handler has started.
--
-- KEYS[1]  the stream
-- ARGV[1]  the group
-- ARGV[2]  the consumer
-- ARGV[3…] per entry two values: id, and the starts noted before it was taken
-- returns  per id: 1 given back, 0 somebody else's, -1 not pending
local answers = {}
for i = 3, #ARGV, 2 do
  local seen = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)[1]
  if not seen then
    answers[#answers + 1] = -1
  elseif seen[2] ~= ARGV[2] then
    answers[#answers + 1] = 0
  else
    redis.call('XCLAIM', KEYS[1], ARGV[1], '_returned', 0, ARGV[i], 'IDLE', 86400000,
      'RETRYCOUNT', ARGV[i + 1], 'JUSTID')
    answers[#answers + 1] = 1
  end
end
return answers
