-- Changes the mark of an id as far as it is the writer's.
--
-- key     a string: `h<hold>` held since its publish, `r<attempt>:<owner>` running, `w<attempt>` waiting
--         for that attempt, `d` done, `d:<reply>` done with this reply
-- change  `done`, `waiting` or `released`
-- owner   who took it; empty: its publish did
-- value   the mark once it is done or waits
-- ms      how long that lasts
-- hold    the name of the hold of the entry that is settled, empty where it has none; nil: any
--
-- Writes nothing first that a full server refuses.
local function change_mark(key, change, owner, value, ms, hold)
  local mark = redis.pcall('GET', key)
  if type(mark) ~= 'string' then
    mark = ''
  end
  if change == 'done' then
    if value == 'd' and string.sub(mark, 1, 2) == 'd:' then
      value = mark
    end
    redis.call('PEXPIRE', key, ms)
    redis.call('SET', key, value, 'PX', ms)
    return
  end
  local held = owner == '' and string.sub(mark, 1, 1) == 'h' and (not hold or mark == 'h' .. hold)
  local running = string.match(mark, '^r%d+:(.*)$') == owner
  if change == 'released' then
    if held or running then
      redis.call('DEL', key)
    end
  elseif held then
    redis.call('PEXPIRE', key, ms, 'GT')
  elseif running then
    redis.call('PEXPIRE', key, ms)
    redis.call('SET', key, value, 'PX', ms)
  end
end

-- The name of the hold that an entry has had on its id since it was published; empty where it has none.
local function hold_of(fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'dedup' then
      return fields[i + 1]
    end
  end
  return ''
end

