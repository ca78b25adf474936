-- Removes entries that are still ours, and changes the marks of their ids.
--
-- KEYS[1]  the stream
-- KEYS[2…] per entry the mark of its id; or none at all
-- ARGV[1]  the group
-- ARGV[2]  the consumer
-- ARGV[3…] per entry its id; with marks followed by change, owner, value, ms
-- returns  per id: 1 removed, 0 somebody else's, -1 not pending
local answers, marks = {}, #KEYS > 1
for i = 3, #ARGV, marks and 5 or 1 do
  local id = ARGV[i]
  local seen = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  if not seen then
    answers[#answers + 1] = -1
  elseif seen[2] ~= ARGV[2] then
    answers[#answers + 1] = 0
  else
    if marks then
      local hold = ''
      if ARGV[i + 1] ~= 'done' then
        local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
        hold = hold_of(entry and entry[2] or {})
      end
      change_mark(KEYS[#answers + 2], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], hold)
    end
    redis.call('XACK', KEYS[1], ARGV[1], id)
    redis.call('XDEL', KEYS[1], id)
    answers[#answers + 1] = 1
  end
end
return answers
