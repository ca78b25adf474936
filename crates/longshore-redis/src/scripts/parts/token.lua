-- Whether a fencing token is smaller than another. Both are decimal numbers of up to 64 bits, which
-- Lua's would round.
local function is_smaller(token, other)
  return #token < #other or (#token == #other and token < other)
end

