-- Notes that handlers of a partition are about to start.
--
-- KEYS[1]  the stream
-- KEYS[2]  the lease
-- ARGV[1]  the group
-- ARGV[2]  who owns it
-- ARGV[3…] per entry two values: id, and the starts noted once this one has happened
-- returns  per id: 1 noted, 0 not theirs any more
local owned = redis.call('GET', KEYS[2]) == ARGV[2]
local answers = {}
for i = 3, #ARGV, 2 do
  local answer = 0
  if owned then
    local seen = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)[1]
    if seen then
      answer = #redis.call('XCLAIM', KEYS[1], ARGV[1], seen[2], 0, ARGV[i],
        'RETRYCOUNT', ARGV[i + 1], 'JUSTID')
    end
  end
  answers[#answers + 1] = answer
end
return answers
