/* Our declarations of libibverbs' structs (transport/verbs_abi.c) against the system's header, where that is installed:
 * every size, offset and constant that is used. A wrong one would be memory corruption on somebody else's machine. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PACKBUF_HEADER "../transport/packbuf_transport.h"
#include "internals.h"
#include "tap.h"
#include <stddef.h>

#if defined(__has_include)
#if __has_include(<infiniband/verbs.h>) && PACKBUF_I_VERBS
#define HAVE_VERBS 1
#endif
#endif

#ifdef HAVE_VERBS
#include <infiniband/verbs.h>

static unsigned compared;

static void same(const char *what, unsigned long long ours, unsigned long long theirs) {
  compared++;
  if (ours != theirs) tap_ok(0, "%s: %llu here, %llu there", what, ours, theirs);
}

#define SIZE(ours, theirs) same("size of " #theirs, sizeof(ours), sizeof(theirs))
#define AT(ours, name, theirs, member)                                                             \
  do {                                                                                             \
    same("offset of " #theirs "." #member, offsetof(ours, name), offsetof(theirs, member));        \
    same("size of " #theirs "." #member, sizeof(((ours *)NULL)->name), sizeof(((theirs *)NULL)->member)); \
  } while (0)
#define MEMBER(ours, theirs, member) AT(ours, member, theirs, member)
#define CONSTANT(ours, theirs) same(#theirs, (unsigned long long)(ours), (unsigned long long)(theirs))

static void constants(void) {
  CONSTANT(PACKBUF_I_IBV_LOCAL_WRITE, IBV_ACCESS_LOCAL_WRITE);
  CONSTANT(PACKBUF_I_IBV_REMOTE_READ, IBV_ACCESS_REMOTE_READ);
  CONSTANT(PACKBUF_I_IBV_RDMA_READ, IBV_WR_RDMA_READ);
  CONSTANT(PACKBUF_I_IBV_SIGNALED, IBV_SEND_SIGNALED);
  CONSTANT(PACKBUF_I_IBV_RELIABLE, IBV_QPT_RC);
  CONSTANT(PACKBUF_I_IBV_PORT_ACTIVE, IBV_PORT_ACTIVE);
  CONSTANT(PACKBUF_I_IBV_STATE_INIT, IBV_QPS_INIT);
  CONSTANT(PACKBUF_I_IBV_STATE_RTR, IBV_QPS_RTR);
  CONSTANT(PACKBUF_I_IBV_STATE_RTS, IBV_QPS_RTS);
  CONSTANT(PACKBUF_I_IBV_MTU_256, IBV_MTU_256);
  CONSTANT(PACKBUF_I_IBV_MTU_4096, IBV_MTU_4096);
  CONSTANT(PACKBUF_I_IBV_SET_STATE, IBV_QP_STATE);
  CONSTANT(PACKBUF_I_IBV_SET_ACCESS, IBV_QP_ACCESS_FLAGS);
  CONSTANT(PACKBUF_I_IBV_SET_PKEY, IBV_QP_PKEY_INDEX);
  CONSTANT(PACKBUF_I_IBV_SET_PORT, IBV_QP_PORT);
  CONSTANT(PACKBUF_I_IBV_SET_AV, IBV_QP_AV);
  CONSTANT(PACKBUF_I_IBV_SET_PATH_MTU, IBV_QP_PATH_MTU);
  CONSTANT(PACKBUF_I_IBV_SET_TIMEOUT, IBV_QP_TIMEOUT);
  CONSTANT(PACKBUF_I_IBV_SET_RETRY_CNT, IBV_QP_RETRY_CNT);
  CONSTANT(PACKBUF_I_IBV_SET_RNR_RETRY, IBV_QP_RNR_RETRY);
  CONSTANT(PACKBUF_I_IBV_SET_RQ_PSN, IBV_QP_RQ_PSN);
  CONSTANT(PACKBUF_I_IBV_SET_MAX_RD_ATOMIC, IBV_QP_MAX_QP_RD_ATOMIC);
  CONSTANT(PACKBUF_I_IBV_SET_MIN_RNR_TIMER, IBV_QP_MIN_RNR_TIMER);
  CONSTANT(PACKBUF_I_IBV_SET_SQ_PSN, IBV_QP_SQ_PSN);
  CONSTANT(PACKBUF_I_IBV_SET_MAX_DEST_RD_ATOMIC, IBV_QP_MAX_DEST_RD_ATOMIC);
  CONSTANT(PACKBUF_I_IBV_SET_DEST_QPN, IBV_QP_DEST_QPN);
  CONSTANT(PACKBUF_I_IBV_DONE, IBV_WC_SUCCESS);
  CONSTANT(PACKBUF_I_IBV_LOC_LEN, IBV_WC_LOC_LEN_ERR);
  CONSTANT(PACKBUF_I_IBV_LOC_QP_OP, IBV_WC_LOC_QP_OP_ERR);
  CONSTANT(PACKBUF_I_IBV_LOC_PROT, IBV_WC_LOC_PROT_ERR);
  CONSTANT(PACKBUF_I_IBV_FLUSHED, IBV_WC_WR_FLUSH_ERR);
  CONSTANT(PACKBUF_I_IBV_LOC_ACCESS, IBV_WC_LOC_ACCESS_ERR);
  CONSTANT(PACKBUF_I_IBV_REM_INV_REQ, IBV_WC_REM_INV_REQ_ERR);
  CONSTANT(PACKBUF_I_IBV_REM_ACCESS, IBV_WC_REM_ACCESS_ERR);
  CONSTANT(PACKBUF_I_IBV_REM_OP, IBV_WC_REM_OP_ERR);
  CONSTANT(PACKBUF_I_IBV_RETRY_EXC, IBV_WC_RETRY_EXC_ERR);
  CONSTANT(PACKBUF_I_IBV_RNR_RETRY_EXC, IBV_WC_RNR_RETRY_EXC_ERR);
  CONSTANT(PACKBUF_I_IBV_EVENT_DEVICE_FATAL, IBV_EVENT_DEVICE_FATAL);
  CONSTANT(PACKBUF_I_IBV_EVENT_PORT_ACTIVE, IBV_EVENT_PORT_ACTIVE);
  CONSTANT(PACKBUF_I_IBV_EVENT_PORT_ERR, IBV_EVENT_PORT_ERR);
}

static void what_is_asked(void) {
  SIZE(packbuf_i_ibv_gid, union ibv_gid);
  SIZE(packbuf_i_ibv_device_attr, struct ibv_device_attr);
  MEMBER(packbuf_i_ibv_device_attr, struct ibv_device_attr, max_mr_size);
  MEMBER(packbuf_i_ibv_device_attr, struct ibv_device_attr, max_qp_wr);
  MEMBER(packbuf_i_ibv_device_attr, struct ibv_device_attr, max_sge);
  MEMBER(packbuf_i_ibv_device_attr, struct ibv_device_attr, max_qp_rd_atom);
  MEMBER(packbuf_i_ibv_device_attr, struct ibv_device_attr, max_qp_init_rd_atom);
  MEMBER(packbuf_i_ibv_device_attr, struct ibv_device_attr, max_mw);
  MEMBER(packbuf_i_ibv_device_attr, struct ibv_device_attr, max_srq);
  MEMBER(packbuf_i_ibv_device_attr, struct ibv_device_attr, phys_port_cnt);
  tap_ok(sizeof(packbuf_i_ibv_port_attr) >= sizeof(struct ibv_port_attr), "a port's attributes have room");
  MEMBER(packbuf_i_ibv_port_attr, struct ibv_port_attr, state);
  MEMBER(packbuf_i_ibv_port_attr, struct ibv_port_attr, active_mtu);
  MEMBER(packbuf_i_ibv_port_attr, struct ibv_port_attr, gid_tbl_len);
  MEMBER(packbuf_i_ibv_port_attr, struct ibv_port_attr, max_msg_sz);
  MEMBER(packbuf_i_ibv_port_attr, struct ibv_port_attr, lid);
  MEMBER(packbuf_i_ibv_port_attr, struct ibv_port_attr, phys_state);
  SIZE(packbuf_i_ibv_async_event, struct ibv_async_event);
  MEMBER(packbuf_i_ibv_async_event, struct ibv_async_event, event_type);
}

static void objects(void) {
  SIZE(packbuf_i_ibv_pd, struct ibv_pd);
  MEMBER(packbuf_i_ibv_pd, struct ibv_pd, context);
  SIZE(packbuf_i_ibv_mr, struct ibv_mr);
  MEMBER(packbuf_i_ibv_mr, struct ibv_mr, addr);
  MEMBER(packbuf_i_ibv_mr, struct ibv_mr, length);
  MEMBER(packbuf_i_ibv_mr, struct ibv_mr, lkey);
  MEMBER(packbuf_i_ibv_mr, struct ibv_mr, rkey);
  SIZE(packbuf_i_ibv_channel, struct ibv_comp_channel);
  MEMBER(packbuf_i_ibv_channel, struct ibv_comp_channel, fd);
  MEMBER(packbuf_i_ibv_cq, struct ibv_cq, context);
  MEMBER(packbuf_i_ibv_cq, struct ibv_cq, channel);
  MEMBER(packbuf_i_ibv_cq, struct ibv_cq, cq_context);
  MEMBER(packbuf_i_ibv_qp, struct ibv_qp, context);
  MEMBER(packbuf_i_ibv_qp, struct ibv_qp, pd);
  MEMBER(packbuf_i_ibv_qp, struct ibv_qp, send_cq);
  MEMBER(packbuf_i_ibv_qp, struct ibv_qp, handle);
  MEMBER(packbuf_i_ibv_qp, struct ibv_qp, qp_num);
  MEMBER(packbuf_i_ibv_context, struct ibv_context, device);
  AT(packbuf_i_ibv_context, poll_cq, struct ibv_context, ops.poll_cq);
  AT(packbuf_i_ibv_context, req_notify_cq, struct ibv_context, ops.req_notify_cq);
  AT(packbuf_i_ibv_context, post_send, struct ibv_context, ops.post_send);
  MEMBER(packbuf_i_ibv_context, struct ibv_context, cmd_fd);
  MEMBER(packbuf_i_ibv_context, struct ibv_context, async_fd);
  MEMBER(packbuf_i_ibv_context, struct ibv_context, num_comp_vectors);
}

static void queue_pairs(void) {
  SIZE(packbuf_i_ibv_qp_cap, struct ibv_qp_cap);
  MEMBER(packbuf_i_ibv_qp_cap, struct ibv_qp_cap, max_send_wr);
  MEMBER(packbuf_i_ibv_qp_cap, struct ibv_qp_cap, max_inline_data);
  SIZE(packbuf_i_ibv_qp_init_attr, struct ibv_qp_init_attr);
  MEMBER(packbuf_i_ibv_qp_init_attr, struct ibv_qp_init_attr, send_cq);
  MEMBER(packbuf_i_ibv_qp_init_attr, struct ibv_qp_init_attr, recv_cq);
  MEMBER(packbuf_i_ibv_qp_init_attr, struct ibv_qp_init_attr, cap);
  MEMBER(packbuf_i_ibv_qp_init_attr, struct ibv_qp_init_attr, qp_type);
  MEMBER(packbuf_i_ibv_qp_init_attr, struct ibv_qp_init_attr, sq_sig_all);
  SIZE(packbuf_i_ibv_ah_attr, struct ibv_ah_attr);
  AT(packbuf_i_ibv_ah_attr, dgid, struct ibv_ah_attr, grh.dgid);
  AT(packbuf_i_ibv_ah_attr, flow_label, struct ibv_ah_attr, grh.flow_label);
  AT(packbuf_i_ibv_ah_attr, sgid_index, struct ibv_ah_attr, grh.sgid_index);
  AT(packbuf_i_ibv_ah_attr, hop_limit, struct ibv_ah_attr, grh.hop_limit);
  AT(packbuf_i_ibv_ah_attr, traffic_class, struct ibv_ah_attr, grh.traffic_class);
  MEMBER(packbuf_i_ibv_ah_attr, struct ibv_ah_attr, dlid);
  MEMBER(packbuf_i_ibv_ah_attr, struct ibv_ah_attr, sl);
  MEMBER(packbuf_i_ibv_ah_attr, struct ibv_ah_attr, src_path_bits);
  MEMBER(packbuf_i_ibv_ah_attr, struct ibv_ah_attr, static_rate);
  MEMBER(packbuf_i_ibv_ah_attr, struct ibv_ah_attr, is_global);
  MEMBER(packbuf_i_ibv_ah_attr, struct ibv_ah_attr, port_num);
  tap_ok(sizeof(packbuf_i_ibv_qp_attr) >= sizeof(struct ibv_qp_attr), "a queue pair's attributes are whole");
  MEMBER(packbuf_i_ibv_qp_attr, struct ibv_qp_attr, qp_state);
  MEMBER(packbuf_i_ibv_qp_attr, struct ibv_qp_attr, path_mtu);
  MEMBER(packbuf_i_ibv_qp_attr, struct ibv_qp_attr, rq_psn);
  MEMBER(packbuf_i_ibv_qp_attr, struct ibv_qp_attr, sq_psn);
  MEMBER(packbuf_i_ibv_qp_attr, struct ibv_qp_attr, dest_qp_num);
  MEMBER(packbuf_i_ibv_qp_attr, struct ibv_qp_attr, qp_access_flags);
  MEMBER(packbuf_i_ibv_qp_attr, struct ibv_qp_attr, cap);
  MEMBER(packbuf_i_ibv_qp_attr, struct ibv_qp_attr, ah_attr);
  MEMBER(packbuf_i_ibv_qp_attr, struct ibv_qp_attr, alt_ah_attr);
  MEMBER(packbuf_i_ibv_qp_attr, struct ibv_qp_attr, pkey_index);
  MEMBER(packbuf_i_ibv_qp_attr, struct ibv_qp_attr, max_rd_atomic);
  MEMBER(packbuf_i_ibv_qp_attr, struct ibv_qp_attr, max_dest_rd_atomic);
  MEMBER(packbuf_i_ibv_qp_attr, struct ibv_qp_attr, min_rnr_timer);
  MEMBER(packbuf_i_ibv_qp_attr, struct ibv_qp_attr, port_num);
  MEMBER(packbuf_i_ibv_qp_attr, struct ibv_qp_attr, timeout);
  MEMBER(packbuf_i_ibv_qp_attr, struct ibv_qp_attr, retry_cnt);
  MEMBER(packbuf_i_ibv_qp_attr, struct ibv_qp_attr, rnr_retry);
  MEMBER(packbuf_i_ibv_qp_attr, struct ibv_qp_attr, alt_timeout);
  MEMBER(packbuf_i_ibv_qp_attr, struct ibv_qp_attr, rate_limit);
}

static void requests(void) {
  SIZE(packbuf_i_ibv_sge, struct ibv_sge);
  MEMBER(packbuf_i_ibv_sge, struct ibv_sge, addr);
  MEMBER(packbuf_i_ibv_sge, struct ibv_sge, length);
  MEMBER(packbuf_i_ibv_sge, struct ibv_sge, lkey);
  SIZE(packbuf_i_ibv_send_wr, struct ibv_send_wr);
  MEMBER(packbuf_i_ibv_send_wr, struct ibv_send_wr, wr_id);
  MEMBER(packbuf_i_ibv_send_wr, struct ibv_send_wr, next);
  MEMBER(packbuf_i_ibv_send_wr, struct ibv_send_wr, sg_list);
  MEMBER(packbuf_i_ibv_send_wr, struct ibv_send_wr, num_sge);
  MEMBER(packbuf_i_ibv_send_wr, struct ibv_send_wr, opcode);
  MEMBER(packbuf_i_ibv_send_wr, struct ibv_send_wr, send_flags);
  MEMBER(packbuf_i_ibv_send_wr, struct ibv_send_wr, imm_data);
  AT(packbuf_i_ibv_send_wr, remote_addr, struct ibv_send_wr, wr.rdma.remote_addr);
  AT(packbuf_i_ibv_send_wr, rkey, struct ibv_send_wr, wr.rdma.rkey);
  SIZE(packbuf_i_ibv_wc, struct ibv_wc);
  MEMBER(packbuf_i_ibv_wc, struct ibv_wc, wr_id);
  MEMBER(packbuf_i_ibv_wc, struct ibv_wc, status);
  MEMBER(packbuf_i_ibv_wc, struct ibv_wc, opcode);
  MEMBER(packbuf_i_ibv_wc, struct ibv_wc, vendor_err);
  MEMBER(packbuf_i_ibv_wc, struct ibv_wc, byte_len);
  MEMBER(packbuf_i_ibv_wc, struct ibv_wc, qp_num);
  MEMBER(packbuf_i_ibv_wc, struct ibv_wc, wc_flags);
  MEMBER(packbuf_i_ibv_wc, struct ibv_wc, dlid_path_bits);
}

int main(void) {
  constants();
  what_is_asked();
  objects();
  queue_pairs();
  requests();
  tap_ok(compared > 150, "%u sizes, offsets and constants were compared with <infiniband/verbs.h>", compared);
  {
    packbuf_i_ibv ibv;
    packbuf_error error;
    const packbuf_status status = packbuf_i_ibv_load(&ibv, &error);
    if (status)
      tap_ok(status == PACKBUF_UNAVAILABLE && error.path[0], "no library: %s (%s)", error.message, error.path);
    else tap_ok(ibv.ack_async_event != NULL, "the library has all functions, in the versions that are known here");
    packbuf_i_ibv_unload(&ibv);
  }
  return tap_plan_done();
}

#else

int main(void) {
  printf("1..0 # SKIP no <infiniband/verbs.h> here (libibverbs-dev)\n");
  return 0;
}

#endif
