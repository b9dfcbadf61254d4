-- Read budgets, and correct what is spent of them. A correction counts only when nobody else has made one since the
-- budget was read: replicas that find the same difference correct it once.
--
-- KEYS      the budgets' hashes, as reserve.lua reads them, all under one {organization} tag
-- ARGV[1]   JSON: [nano-USD to add, times it had been corrected when it was read] of each, in the order of KEYS;
--           adding 0 only reads
-- returns   {spent, reserved, times corrected} of each, one after the other; -1 three times for a missing one
local corrections = cjson.decode(ARGV[1])
local answer = {}
for i = 1, #KEYS do
  local stored = redis.call('HMGET', KEYS[i], 'spent', 'reserved', 'mended')
  local spent, reserved, mended = -1, -1, -1
  if stored[1] then
    spent, reserved, mended = tonumber(stored[1]), tonumber(stored[2]), tonumber(stored[3] or 0)
    local delta, seen = corrections[i][1], corrections[i][2]
    if delta ~= 0 and mended == seen then
      spent, mended = math.max(spent + delta, 0), mended + 1
      write(KEYS[i], spent, reserved)
      redis.call('HSET', KEYS[i], 'mended', mended)
    end
  end
  answer[3 * i - 2], answer[3 * i - 1], answer[3 * i] = spent, reserved, mended
end
return answer
