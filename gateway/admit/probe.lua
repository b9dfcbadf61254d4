-- Whether Redis does what reserving and settling ask of it: a ping would be answered by a read-only or full one too.
--
-- KEYS[1]  a key of the prober's own
-- ARGV[1]  milliseconds until it is forgotten
-- returns  1
redis.call('SET', KEYS[1], clock_ms(), 'PX', ARGV[1])
redis.call('GET', KEYS[1])
return 1
