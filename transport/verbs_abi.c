/* transport/verbs_abi.c: libibverbs, loaded at run time: declarations of our own of the structs that cross its border
 * (version IBVERBS_1.1 of its interface, whose layouts have not changed since 2010), and the table of its functions.
 * tests/verbs_abi.c compares every size, offset and constant with <infiniband/verbs.h> where that is installed.
 * May use: system. Must not know: what is done with it. */
#if defined(__linux__) && UINTPTR_MAX > 0xFFFFFFFFu
#define PACKBUF_I_VERBS 1
#include <dlfcn.h>
#else
#define PACKBUF_I_VERBS 0
#endif

/* ---- constants ---- */

enum {
  PACKBUF_I_IBV_LOCAL_WRITE = 1, /* access to memory. There is no name for REMOTE_WRITE here: nobody is to have it */
  PACKBUF_I_IBV_REMOTE_READ = 4,
  PACKBUF_I_IBV_RDMA_READ = 4, /* opcode of a request */
  PACKBUF_I_IBV_SIGNALED = 2,
  PACKBUF_I_IBV_RELIABLE = 2, /* type of a queue pair */
  PACKBUF_I_IBV_PORT_ACTIVE = 4,
  PACKBUF_I_IBV_STATE_INIT = 1,
  PACKBUF_I_IBV_STATE_RTR = 2,
  PACKBUF_I_IBV_STATE_RTS = 3,
  PACKBUF_I_IBV_MTU_256 = 1,
  PACKBUF_I_IBV_MTU_4096 = 5
};

/* What of packbuf_i_ibv_qp_attr is set. */
enum {
  PACKBUF_I_IBV_SET_STATE = 1,
  PACKBUF_I_IBV_SET_ACCESS = 1 << 3,
  PACKBUF_I_IBV_SET_PKEY = 1 << 4,
  PACKBUF_I_IBV_SET_PORT = 1 << 5,
  PACKBUF_I_IBV_SET_AV = 1 << 7,
  PACKBUF_I_IBV_SET_PATH_MTU = 1 << 8,
  PACKBUF_I_IBV_SET_TIMEOUT = 1 << 9,
  PACKBUF_I_IBV_SET_RETRY_CNT = 1 << 10,
  PACKBUF_I_IBV_SET_RNR_RETRY = 1 << 11,
  PACKBUF_I_IBV_SET_RQ_PSN = 1 << 12,
  PACKBUF_I_IBV_SET_MAX_RD_ATOMIC = 1 << 13,
  PACKBUF_I_IBV_SET_MIN_RNR_TIMER = 1 << 15,
  PACKBUF_I_IBV_SET_SQ_PSN = 1 << 16,
  PACKBUF_I_IBV_SET_MAX_DEST_RD_ATOMIC = 1 << 17,
  PACKBUF_I_IBV_SET_DEST_QPN = 1 << 20
};

/* How a request ended. */
enum {
  PACKBUF_I_IBV_DONE = 0,
  PACKBUF_I_IBV_LOC_LEN = 1,
  PACKBUF_I_IBV_LOC_QP_OP = 2,
  PACKBUF_I_IBV_LOC_PROT = 4,
  PACKBUF_I_IBV_FLUSHED = 5,
  PACKBUF_I_IBV_LOC_ACCESS = 8,
  PACKBUF_I_IBV_REM_INV_REQ = 9,
  PACKBUF_I_IBV_REM_ACCESS = 10,
  PACKBUF_I_IBV_REM_OP = 11,
  PACKBUF_I_IBV_RETRY_EXC = 12,
  PACKBUF_I_IBV_RNR_RETRY_EXC = 13
};

/* What happens to a device. */
enum { PACKBUF_I_IBV_EVENT_DEVICE_FATAL = 8, PACKBUF_I_IBV_EVENT_PORT_ACTIVE = 9, PACKBUF_I_IBV_EVENT_PORT_ERR = 10 };

/* ---- structs ---- */

typedef struct packbuf_i_ibv_context packbuf_i_ibv_context;
typedef struct packbuf_i_ibv_device packbuf_i_ibv_device; /* only named */
typedef struct packbuf_i_ibv_pd packbuf_i_ibv_pd;

typedef struct packbuf_i_ibv_gid {
  uint8_t raw[16];
  /* the library's is a union with two numbers of 64 bits, so it has their alignment */
} __attribute__((aligned(8))) packbuf_i_ibv_gid;

typedef struct packbuf_i_ibv_device_attr {
  char fw_ver[64];
  uint64_t node_guid, sys_image_guid, max_mr_size, page_size_cap;
  uint32_t vendor_id, vendor_part_id, hw_ver;
  int max_qp, max_qp_wr;
  unsigned device_cap_flags;
  int max_sge, max_sge_rd, max_cq, max_cqe, max_mr, max_pd;
  int max_qp_rd_atom, max_ee_rd_atom, max_res_rd_atom, max_qp_init_rd_atom, max_ee_init_rd_atom;
  int atomic_cap, max_ee, max_rdd, max_mw, max_raw_ipv6_qp, max_raw_ethy_qp;
  int max_mcast_grp, max_mcast_qp_attach, max_total_mcast_qp_attach, max_ah, max_fmr, max_map_per_fmr;
  int max_srq, max_srq_wr, max_srq_sge;
  uint16_t max_pkeys;
  uint8_t local_ca_ack_delay, phys_port_cnt;
} packbuf_i_ibv_device_attr;

/* The old front part, which is all that the library's function fills; behind it, room for what it may come to fill. */
typedef struct packbuf_i_ibv_port_attr {
  int state, max_mtu, active_mtu, gid_tbl_len;
  uint32_t port_cap_flags, max_msg_sz, bad_pkey_cntr, qkey_viol_cntr;
  uint16_t pkey_tbl_len, lid, sm_lid;
  uint8_t lmc, max_vl_num, sm_sl, subnet_timeout, init_type_reply, active_width, active_speed, phys_state;
  uint8_t more[64];
} packbuf_i_ibv_port_attr;

struct packbuf_i_ibv_pd {
  packbuf_i_ibv_context *context;
  uint32_t handle;
};

typedef struct packbuf_i_ibv_mr {
  packbuf_i_ibv_context *context;
  packbuf_i_ibv_pd *pd;
  void *addr;
  size_t length;
  uint32_t handle, lkey, rkey;
} packbuf_i_ibv_mr;

typedef struct packbuf_i_ibv_channel {
  packbuf_i_ibv_context *context;
  int fd, refcnt;
} packbuf_i_ibv_channel;

typedef struct packbuf_i_ibv_cq { /* the front part */
  packbuf_i_ibv_context *context;
  packbuf_i_ibv_channel *channel;
  void *cq_context;
} packbuf_i_ibv_cq;

typedef struct packbuf_i_ibv_qp { /* the front part */
  packbuf_i_ibv_context *context;
  void *qp_context;
  packbuf_i_ibv_pd *pd;
  packbuf_i_ibv_cq *send_cq, *recv_cq;
  void *srq;
  uint32_t handle, qp_num;
} packbuf_i_ibv_qp;

typedef struct packbuf_i_ibv_qp_cap {
  uint32_t max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline_data;
} packbuf_i_ibv_qp_cap;

typedef struct packbuf_i_ibv_qp_init_attr {
  void *qp_context;
  packbuf_i_ibv_cq *send_cq, *recv_cq;
  void *srq;
  packbuf_i_ibv_qp_cap cap;
  int qp_type, sq_sig_all;
} packbuf_i_ibv_qp_init_attr;

typedef struct packbuf_i_ibv_ah_attr {
  packbuf_i_ibv_gid dgid; /* the five of the library's global route */
  uint32_t flow_label;
  uint8_t sgid_index, hop_limit, traffic_class;
  uint8_t gap[1];
  uint16_t dlid;
  uint8_t sl, src_path_bits, static_rate, is_global, port_num;
} __attribute__((aligned(8))) packbuf_i_ibv_ah_attr;

typedef struct packbuf_i_ibv_qp_attr {
  int qp_state, cur_qp_state, path_mtu, path_mig_state;
  uint32_t qkey, rq_psn, sq_psn, dest_qp_num;
  unsigned qp_access_flags;
  packbuf_i_ibv_qp_cap cap;
  packbuf_i_ibv_ah_attr ah_attr, alt_ah_attr;
  uint16_t pkey_index, alt_pkey_index;
  uint8_t en_sqd_async_notify, sq_draining, max_rd_atomic, max_dest_rd_atomic, min_rnr_timer, port_num;
  uint8_t timeout, retry_cnt, rnr_retry, alt_port_num, alt_timeout;
  uint32_t rate_limit;
} packbuf_i_ibv_qp_attr;

typedef struct packbuf_i_ibv_sge {
  uint64_t addr;
  uint32_t length, lkey;
} packbuf_i_ibv_sge;

typedef struct packbuf_i_ibv_send_wr {
  uint64_t wr_id;
  struct packbuf_i_ibv_send_wr *next;
  packbuf_i_ibv_sge *sg_list;
  int num_sge, opcode;
  unsigned send_flags;
  uint32_t imm_data;
  uint64_t remote_addr; /* the library has unions from here on; of them, those of RDMA */
  uint32_t rkey;
  uint64_t others[9];
} packbuf_i_ibv_send_wr;

typedef struct packbuf_i_ibv_wc {
  uint64_t wr_id;
  int status, opcode;
  uint32_t vendor_err, byte_len, imm_data, qp_num, src_qp;
  unsigned wc_flags;
  uint16_t pkey_index, slid;
  uint8_t sl, dlid_path_bits;
} packbuf_i_ibv_wc;

typedef struct packbuf_i_ibv_async_event {
  union {
    void *object;
    int port_num;
  } element;
  int event_type;
} packbuf_i_ibv_async_event;

/* Of a context the table of functions that the header's inline functions go through: three of them are ours to call. */
struct packbuf_i_ibv_context {
  packbuf_i_ibv_device *device;
  void (*before_poll_cq[11])(void);
  int (*poll_cq)(packbuf_i_ibv_cq *cq, int count, packbuf_i_ibv_wc *wc);
  int (*req_notify_cq)(packbuf_i_ibv_cq *cq, int solicited_only);
  void (*before_post_send[12])(void);
  int (*post_send)(packbuf_i_ibv_qp *qp, packbuf_i_ibv_send_wr *wr, packbuf_i_ibv_send_wr **bad);
  void (*after_post_send[6])(void);
  int cmd_fd, async_fd, num_comp_vectors;
};

/* ---- functions ---- */

/* X(result, name, arguments, version of the symbol) */
#define PACKBUF_I_IBV_FUNCTIONS(X)                                                                                     \
  X(packbuf_i_ibv_device **, get_device_list, (int *count), "IBVERBS_1.1")                                             \
  X(void, free_device_list, (packbuf_i_ibv_device * *list), "IBVERBS_1.1")                                             \
  X(const char *, get_device_name, (packbuf_i_ibv_device * device), "IBVERBS_1.1")                                     \
  X(packbuf_i_ibv_context *, open_device, (packbuf_i_ibv_device * device), "IBVERBS_1.1")                              \
  X(int, close_device, (packbuf_i_ibv_context * context), "IBVERBS_1.1")                                               \
  X(int, query_device, (packbuf_i_ibv_context * context, packbuf_i_ibv_device_attr * attr), "IBVERBS_1.1")             \
  X(int, query_port, (packbuf_i_ibv_context * context, uint8_t port, packbuf_i_ibv_port_attr * attr), "IBVERBS_1.1")   \
  X(int, query_gid, (packbuf_i_ibv_context * context, uint8_t port, int index, packbuf_i_ibv_gid *gid), "IBVERBS_1.1") \
  X(packbuf_i_ibv_pd *, alloc_pd, (packbuf_i_ibv_context * context), "IBVERBS_1.1")                                    \
  X(int, dealloc_pd, (packbuf_i_ibv_pd * pd), "IBVERBS_1.1")                                                           \
  X(packbuf_i_ibv_mr *, reg_mr, (packbuf_i_ibv_pd * pd, void *address, size_t size, int access), "IBVERBS_1.1")        \
  X(int, dereg_mr, (packbuf_i_ibv_mr * mr), "IBVERBS_1.1")                                                             \
  X(packbuf_i_ibv_channel *, create_comp_channel, (packbuf_i_ibv_context * context), "IBVERBS_1.0")                    \
  X(int, destroy_comp_channel, (packbuf_i_ibv_channel * channel), "IBVERBS_1.0")                                       \
  X(packbuf_i_ibv_cq *, create_cq,                                                                                     \
    (packbuf_i_ibv_context * context, int entries, void *user, packbuf_i_ibv_channel *channel, int vector),            \
    "IBVERBS_1.1")                                                                                                     \
  X(int, destroy_cq, (packbuf_i_ibv_cq * cq), "IBVERBS_1.1")                                                           \
  X(int, get_cq_event, (packbuf_i_ibv_channel * channel, packbuf_i_ibv_cq * *cq, void **user), "IBVERBS_1.1")          \
  X(void, ack_cq_events, (packbuf_i_ibv_cq * cq, unsigned count), "IBVERBS_1.1")                                       \
  X(packbuf_i_ibv_qp *, create_qp, (packbuf_i_ibv_pd * pd, packbuf_i_ibv_qp_init_attr * attr), "IBVERBS_1.1")          \
  X(int, modify_qp, (packbuf_i_ibv_qp * qp, packbuf_i_ibv_qp_attr * attr, int mask), "IBVERBS_1.1")                    \
  X(int, destroy_qp, (packbuf_i_ibv_qp * qp), "IBVERBS_1.1")                                                           \
  X(int, get_async_event, (packbuf_i_ibv_context * context, packbuf_i_ibv_async_event * event), "IBVERBS_1.1")         \
  X(void, ack_async_event, (packbuf_i_ibv_async_event * event), "IBVERBS_1.1")

typedef struct packbuf_i_ibv {
  void *library;
#define PACKBUF_I_X(result, name, arguments, version) result(*name) arguments;
  PACKBUF_I_IBV_FUNCTIONS(PACKBUF_I_X)
#undef PACKBUF_I_X
} packbuf_i_ibv;

#if PACKBUF_I_VERBS

/* A function of exactly that version: another one has other structs. NULL: there is none. */
static void *packbuf_i_ibv_function(void *library, const char *name, const char *version) {
#if defined(__GLIBC__)
  return dlvsym(library, name, version);
#else
  (void)version; /* the system's loader knows no versions: what it finds is the newest */
  return dlsym(library, name);
#endif
}

/* Loads the library. UNAVAILABLE: error->path says what the loader said, or what is missing. */
static packbuf_status packbuf_i_ibv_load(packbuf_i_ibv *ibv, packbuf_error *error) {
  static const char *const names[] = {
#define PACKBUF_I_X(result, name, arguments, version) "ibv_" #name, version,
      PACKBUF_I_IBV_FUNCTIONS(PACKBUF_I_X)
#undef PACKBUF_I_X
  };
  uint8_t *const functions = (uint8_t *)ibv + offsetof(packbuf_i_ibv, get_device_list);
  memset(ibv, 0, sizeof *ibv);
  ibv->library = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!ibv->library) {
    const char *said = dlerror();
    return packbuf_i_item_fail(error, PACKBUF_UNAVAILABLE, "libibverbs.so.1 cannot be loaded", said ? said : "",
                               PACKBUF_NOWHERE, PACKBUF_NOWHERE);
  }
  for (size_t i = 0; i < sizeof names / sizeof *names; i += 2) {
    void *const function = packbuf_i_ibv_function(ibv->library, names[i], names[i + 1]);
    if (!function) {
      (void)dlclose(ibv->library);
      ibv->library = NULL;
      return packbuf_i_item_fail(error, PACKBUF_UNAVAILABLE,
                                 "libibverbs lacks a function in the version that is known here", names[i],
                                 PACKBUF_NOWHERE, PACKBUF_NOWHERE);
    }
    memcpy(functions + i / 2 * sizeof function, &function, sizeof function);
  }
  return PACKBUF_OK;
}

static void packbuf_i_ibv_unload(packbuf_i_ibv *ibv) {
  if (ibv->library) (void)dlclose(ibv->library);
  ibv->library = NULL;
}

#else

static packbuf_status packbuf_i_ibv_load(packbuf_i_ibv *ibv, packbuf_error *error) {
  memset(ibv, 0, sizeof *ibv);
  return packbuf_i_call_fail(error, PACKBUF_UNAVAILABLE, "verbs needs Linux on 64 bits");
}

static void packbuf_i_ibv_unload(packbuf_i_ibv *ibv) { (void)ibv; }

#endif
