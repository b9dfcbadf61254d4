-- Read budgets, count what has lapsed of them as spent, and correct what is spent. A correction counts only when nobody
-- else has made one since the budget was read: replicas that find the same difference correct it once.
--
-- KEYS      two a budget, as reserve.lua reads them, all under one {organization} tag
-- ARGV[1]   JSON: [nano-USD to add, times it had been corrected when it was read] of each, in the order of KEYS;
--           adding 0 only reads
-- returns   {spent, reserved, times corrected} of each, one after the other; -1 three times for a missing one
local corrections = cjson.decode(ARGV[1])
local now_ms = clock_ms()
local answer = {}
for i = 1, #corrections do
  local key, holds = KEYS[2 * i - 1], KEYS[2 * i]
  local stored = redis.call('HMGET', key, 'spent', 'reserved', 'mended')
  local spent, reserved, mended = -1, -1, -1
  if stored[1] then
    mended = tonumber(stored[3] or 0)
    spent, reserved = lapse(key, holds, tonumber(stored[1]), tonumber(stored[2]), now_ms)
    local delta = math.max(corrections[i][1], -spent)
    if delta ~= 0 and mended == corrections[i][2] then
      spent, mended = spent + delta, mended + 1
      write(key, spent, reserved)
      redis.call('HSET', key, 'mended', mended)
    end
  end
  answer[3 * i - 2], answer[3 * i - 1], answer[3 * i] = spent, reserved, mended
end
return answer
