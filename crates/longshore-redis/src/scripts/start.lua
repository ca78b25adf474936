-- Notes that handlers are about to start, and renews the locks.
--
-- KEYS[1]  the stream
-- ARGV[1]  the group
-- ARGV[2]  the consumer
-- ARGV[3…] per entry two values: id, and the starts noted once this one has happened
-- returns  per id: 1 noted, 0 not ours any more
local answers = {}
for i = 3, #ARGV, 2 do
  local seen = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)[1]
  if seen and seen[2] == ARGV[2] then
    local claimed = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i],
      'RETRYCOUNT', ARGV[i + 1], 'JUSTID')
    answers[#answers + 1] = #claimed
  else
    answers[#answers + 1] = 0
  end
end
return answers
