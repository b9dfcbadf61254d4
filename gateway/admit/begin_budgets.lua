-- Begin budgets with what they were summed up to be, where nobody else has begun them meanwhile.
--
-- KEYS      the budgets' hashes, as reserve.lua reads them, all under one {organization} tag
-- ARGV[1]   JSON: [nano-USD spent, Unix time in milliseconds at which it may be forgotten] of each, in the order of KEYS
-- returns   how many were begun
local sums = cjson.decode(ARGV[1])
local begun = 0
for i = 1, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then
    write(KEYS[i], sums[i][1], 0)
    redis.call('PEXPIREAT', KEYS[i], string.format('%.0f', sums[i][2]))
    begun = begun + 1
  end
end
return begun
