-- Whether Redis does what the other scripts ask of it: a ping would be answered by a read-only or full one too, or by
-- one whose user lacks a right. So each of their commands that writes is used here.
--
-- KEYS[1]  a key of the prober's own
-- ARGV[1]  milliseconds until it is forgotten, should this be interrupted
-- returns  1
local key = KEYS[1]
redis.call('SET', key, clock_ms(), 'PX', ARGV[1])
redis.call('GET', key)
redis.call('EXISTS', key)
redis.call('DEL', key)
redis.call('HSET', key, 'n', 1)
redis.call('HINCRBY', key, 'n', 1)
redis.call('HMGET', key, 'n')
redis.call('PEXPIRE', key, ARGV[1])
redis.call('PEXPIREAT', key, 0)
redis.call('ZADD', key, 1, 'm')
redis.call('ZCOUNT', key, 0, 1)
redis.call('ZSCORE', key, 'm')
redis.call('ZRANGEBYSCORE', key, 0, 1)
redis.call('ZREMRANGEBYSCORE', key, 0, 1)
redis.call('ZREM', key, 'm')
redis.call('DEL', key)
return 1
