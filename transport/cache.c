/* temporary */
typedef struct packbuf_i_cache { int none; } packbuf_i_cache;
typedef struct packbuf_i_hold { void *range; } packbuf_i_hold;
static void packbuf_i_cache_start(packbuf_i_cache *c,const packbuf_allocator*a,packbuf_status (*attach)(void *, const void *, uint64_t , void **, packbuf_error *),void (*detach)(void *, void *),void*state){(void)c,(void)a,(void)attach,(void)detach,(void)state;}
static void packbuf_i_cache_end(packbuf_i_cache*c){(void)c;}
static packbuf_status packbuf_i_cache_register(packbuf_i_cache*c,const void*a,uint64_t s,packbuf_error*e){(void)c,(void)a,(void)s,(void)e;return PACKBUF_OK;}
static packbuf_status packbuf_i_cache_unregister(packbuf_i_cache*c,const void*a,uint64_t s,packbuf_error*e){(void)c,(void)a,(void)s,(void)e;return PACKBUF_OK;}
static packbuf_status packbuf_i_cache_hold(packbuf_i_cache*c,const void*a,uint64_t s,int x,packbuf_i_hold*h,packbuf_error*e){(void)c,(void)a,(void)s,(void)x,(void)h,(void)e;return PACKBUF_OK;}
static void packbuf_i_cache_drop(packbuf_i_cache*c,packbuf_i_hold*h){(void)c,(void)h;}
static uint64_t packbuf_i_cache_registrations(packbuf_i_cache*c){(void)c;return 0;}
static uint64_t packbuf_i_cache_registered(packbuf_i_cache*c){(void)c;return 0;}
static void packbuf_i_pool_use(packbuf_pool*p){(void)p;}
static void packbuf_i_pool_unuse(packbuf_pool*p){(void)p;}
static void packbuf_i_pool_count(packbuf_pool*p,packbuf_counters*c){(void)p,(void)c;}
PACKBUF_API packbuf_status packbuf_pool_open(const packbuf_pool_options *options, packbuf_pool **pool,
                                             packbuf_error *error){(void)options,(void)pool;return packbuf_i_call_fail(error,PACKBUF_UNAVAILABLE,"no pool");}
PACKBUF_API packbuf_status packbuf_pool_close(packbuf_pool *pool, packbuf_error *error){(void)pool,(void)error;return PACKBUF_OK;}
PACKBUF_API packbuf_status packbuf_pool_quota(packbuf_pool *pool, uint32_t account, uint64_t bytes,
                                              packbuf_error *error){(void)pool,(void)account,(void)bytes,(void)error;return PACKBUF_OK;}
PACKBUF_API packbuf_status packbuf_pool_take(packbuf_pool *pool, uint32_t account, const uint64_t *sizes,
                                             uint64_t count, uint64_t deadline, packbuf_slice *slices,
                                             packbuf_error *error){(void)pool,(void)account,(void)sizes,(void)count,(void)deadline,(void)slices,(void)error;return PACKBUF_UNAVAILABLE;}
