-- Takes ids for the starts of handlers.
--
-- KEYS     their marks
-- ARGV     per id four values: owner, attempt, ms of the lease, 1 where it is the sole copy
-- returns  per id: {1} taken, {0, ms} somebody else's for so long, {2} done, {2, reply} done with it
local answers = {}
for i, key in ipairs(KEYS) do
  local owner, attempt, lease, sole = ARGV[i * 4 - 3], ARGV[i * 4 - 2], ARGV[i * 4 - 1], ARGV[i * 4]
  local mark = redis.pcall('GET', key)
  if type(mark) == 'table' and not string.find(mark.err, 'WRONGTYPE', 1, true) then
    -- Whoever cannot look must not take it for free. Of another type it is nobody's mark.
    return mark
  end
  if type(mark) ~= 'string' then
    mark = nil
  end
  local ours = not mark or sole == '1'
  if mark and string.sub(mark, 1, 1) == 'd' then
    local reply = string.sub(mark, 2, 2) == ':' and string.sub(mark, 3) or nil
    answers[i] = { 2, reply }
  else
    if not ours then
      local waits = string.match(mark, '^w(%d+)$')
      ours = string.match(mark, '^r%d+:(.*)$') == owner or (waits and tonumber(attempt) >= tonumber(waits))
    end
    local left = not ours and redis.call('PTTL', key) or 0
    -- A mark of ours has an end; what has none would hold its id for ever.
    if ours or left < 0 then
      redis.call('SET', key, 'r' .. attempt .. ':' .. owner, 'PX', lease)
      answers[i] = { 1 }
    else
      answers[i] = { 0, left }
    end
  end
end
return answers
