-- Gives entries back that no handler has started, and changes the marks of their ids.
--
-- KEYS[1]  the stream
-- KEYS[2…] per entry the mark of its id; or none at all
-- ARGV[1]  the group
-- ARGV[2]  the consumer
-- ARGV[3…] per entry two values: id, and the starts noted before it was taken; with marks followed
--          by change, owner, value, ms
-- returns  per id: 1 given back, 0 somebody else's, -1 not pending
local answers, marks = {}, #KEYS > 1
for i = 3, #ARGV, marks and 6 or 2 do
  local id = ARGV[i]
  local seen = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  if not seen then
    answers[#answers + 1] = -1
  elseif seen[2] ~= ARGV[2] then
    answers[#answers + 1] = 0
  else
    if marks then
      local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
      local hold = hold_of(entry and entry[2] or {})
      change_mark(KEYS[#answers + 2], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], hold)
    end
    redis.call('XCLAIM', KEYS[1], ARGV[1], '_returned', 0, id, 'IDLE', 86400000,
      'RETRYCOUNT', ARGV[i + 1], 'JUSTID')
    answers[#answers + 1] = 1
  end
end
return answers
