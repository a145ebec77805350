/* core/plan.c: from a batch to its plan: expand and infer what is dynamic, number the nodes, plan their buffers, sort
 * the names, and give everything its place. The size that results is exact unless data are packed: these get the room
 * that they take plain, and what they leave of it is known once they are written.
 * May use: batch, expansion, layout, share, packing, sort. Must not know: the destination. */

/* A schema entry for a field given as an array: what it can change (flags, logical type, text instead of bytes) and
 * what it must agree with. */
static packbuf_status packbuf_i_apply_schema(packbuf_i_plan *plan, packbuf_i_node *node) {
  const char *path = packbuf_i_node_path(node, plan->arena);
  if (!path) return packbuf_i_plan_no_memory(plan);
  for (size_t i = 0; i < plan->options->schema_count; i++) {
    const packbuf_schema *schema = &plan->options->schemas[i];
    if (!schema->path || schema->batch_value != node->scope || strcmp(schema->path, path) != 0) continue;
    if (schema->codec && schema->codec != (packbuf_codec)node->codec) {
      if (node->source != PACKBUF_I_FROM_TEXT ||
          (schema->codec != PACKBUF_CODEC_UTF8_RAGGED && schema->codec != PACKBUF_CODEC_BYTES_RAGGED))
        return packbuf_i_plan_fail(plan, node, PACKBUF_UNENCODABLE,
                                   "the schema asks for another codec than the field's array has", PACKBUF_NOWHERE);
      node->codec = (uint8_t)schema->codec;
    }
    if (schema->dtype.bits && (schema->dtype.code != node->dtype.code || schema->dtype.bits != node->dtype.bits))
      return packbuf_i_plan_fail(plan, node, PACKBUF_UNENCODABLE,
                                 "the schema asks for another dtype than the field's array has", PACKBUF_NOWHERE);
    node->flags = schema->flags;
    node->packing = schema->packing;
    node->logical_type = schema->logical_type;
    node->parameter = schema->parameter;
    node->parameter_size = schema->parameter ? strlen(schema->parameter) : 0;
    if (packbuf_i_utf8_valid((const uint8_t *)node->parameter, node->parameter_size) != node->parameter_size)
      return packbuf_i_plan_fail(plan, node, PACKBUF_BAD_UTF8, "the schema's parameter is not UTF-8", PACKBUF_NOWHERE);
  }
  return PACKBUF_OK;
}

/* Expands and infers one field. Compat decisions are for comparison: a column they would change is refused. */
static packbuf_status packbuf_i_plan_field(packbuf_i_plan *plan, packbuf_i_node *node) {
  packbuf_i_expand expand;
  if (node->source != PACKBUF_I_FROM_CELLS)
    return plan->options->schema_count ? packbuf_i_apply_schema(plan, node) : PACKBUF_OK;
  memset(&expand, 0, sizeof expand);
  expand.arena = plan->arena;
  expand.schemas = plan->options->schemas;
  expand.schema_count = plan->options->schema_count;
  expand.error = plan->error;
  expand.nodes = plan->node_count;
  node->first_child = node->last_child = NULL;
  if (plan->options->mode == PACKBUF_COMPAT) {
    packbuf_status status = packbuf_i_check_compat(&expand, node);
    if (status) return status;
  }
  expand.mode = PACKBUF_STRICT;
  return packbuf_i_expand_node(&expand, node, 0);
}

/* Media leaves get their attribute leaves, one row a cell or one a stored item. */
static packbuf_status packbuf_i_prepare_leaf(packbuf_i_plan *plan, packbuf_i_node *node) {
  const int list = node->codec == PACKBUF_CODEC_MEDIA_LIST_RAGGED;
  packbuf_status status;
  node->sizes = NULL;
  node->encoded = NULL;
  node->stored = node;
  node->constant = node->sampled = 0;
  node->row_index = node->kept = node->prefix_row = node->prefix_length = NULL;
  if (!list && node->codec != PACKBUF_CODEC_MEDIA_BYTES) return PACKBUF_OK;
  node->first_child = node->last_child = NULL;
  status = list ? packbuf_i_share(plan, node) : PACKBUF_OK;
  if (!status && !packbuf_i_prepare_media(node, plan->arena)) status = packbuf_i_plan_no_memory(plan);
  return status;
}

static packbuf_status packbuf_i_prepare_tree(packbuf_i_plan *plan, packbuf_i_node *node) {
  plan->node_count++;
  if (node->kind == PACKBUF_LEAF) {
    packbuf_status status = packbuf_i_prepare_leaf(plan, node);
    if (status) return status;
  }
  for (packbuf_i_node *child = node->first_child; child; child = child->next) {
    packbuf_status status = packbuf_i_prepare_tree(plan, child);
    if (status) return status;
  }
  return PACKBUF_OK;
}

/* Pre-order: depth is bounded by expansion (32) and the attribute leaves. */
static packbuf_status packbuf_i_number_tree(packbuf_i_plan *plan, packbuf_i_node *node, uint32_t *next) {
  packbuf_status status;
  node->index = *next;
  if (node->kind == PACKBUF_LEAF) node->stored->index = node->index;
  plan->nodes[(*next)++] = node;
  status = packbuf_i_plan_node(plan, node);
  for (packbuf_i_node *child = node->first_child; !status && child; child = child->next)
    status = packbuf_i_number_tree(plan, child, next);
  return status;
}

static packbuf_status packbuf_i_plan_nodes(packbuf_i_plan *plan, packbuf_batch *batch) {
  packbuf_i_field *field;
  uint32_t next = 0;
  for (unsigned scope = 0; scope < 2; scope++)
    for (field = batch->first; field; field = field->next) {
      packbuf_status status;
      if (field->node.scope != scope) continue;
      if (scope) plan->value_count++;
      else plan->field_count++;
      status = packbuf_i_plan_field(plan, &field->node);
      if (!status) status = packbuf_i_prepare_tree(plan, &field->node);
      if (status) return status;
      if (plan->node_count > (1u << 20))
        return packbuf_i_plan_fail(plan, &field->node, PACKBUF_LIMIT, "more than 2^20 nodes", PACKBUF_NOWHERE);
    }
  plan->nodes = (packbuf_i_node **)packbuf_arena_alloc(plan->arena, (plan->node_count + 1) * sizeof *plan->nodes, 8);
  if (!plan->nodes) return packbuf_i_plan_no_memory(plan);
  for (unsigned scope = 0; scope < 2; scope++)
    for (field = batch->first; field; field = field->next)
      if (field->node.scope == scope) {
        packbuf_status status = packbuf_i_number_tree(plan, &field->node, &next);
        if (status) return status;
      }
  return PACKBUF_OK;
}

/* ---- the name index and the metadata, sorted ---- */

/* By parent, scope and name; a and b are indexes of nodes. */
static int packbuf_i_compare_nodes(const void *context, const void *a, const void *b) {
  const packbuf_i_plan *plan = (const packbuf_i_plan *)context;
  const packbuf_i_node *x = plan->nodes[*(const uint32_t *)a], *y = plan->nodes[*(const uint32_t *)b];
  uint32_t px = x->parent ? x->parent->index : UINT32_MAX, py = y->parent ? y->parent->index : UINT32_MAX;
  if (px != py) return px < py ? -1 : 1;
  if (x->scope != y->scope) return x->scope < y->scope ? -1 : 1;
  return packbuf_i_compare_text(x->name, x->name_size, y->name, y->name_size);
}

/* By node and key; a and b are indexes of pairs. */
static int packbuf_i_compare_pairs(const void *context, const void *a, const void *b) {
  const packbuf_i_plan *plan = (const packbuf_i_plan *)context;
  const uint32_t i = *(const uint32_t *)a, k = *(const uint32_t *)b;
  if (plan->pair_nodes[i] != plan->pair_nodes[k]) return plan->pair_nodes[i] < plan->pair_nodes[k] ? -1 : 1;
  return packbuf_i_compare_text(plan->pairs[i]->key, plan->pairs[i]->key_size, plan->pairs[k]->key,
                                plan->pairs[k]->key_size);
}

static packbuf_status packbuf_i_plan_names(packbuf_i_plan *plan) {
  uint32_t *list =
      (uint32_t *)packbuf_arena_alloc(plan->arena, (plan->node_count + 1) * 2 * sizeof *list, sizeof *list);
  if (!list) return packbuf_i_plan_no_memory(plan);
  for (uint32_t i = 0; i < plan->node_count; i++)
    if (!plan->nodes[i]->parent || plan->nodes[i]->parent->kind != PACKBUF_NODE_LIST) list[plan->name_count++] = i;
  plan->names = (uint32_t *)packbuf_i_sort(list, list + plan->node_count + 1, plan->name_count, sizeof *list,
                                           packbuf_i_compare_nodes, plan);
  for (uint32_t i = 1; i < plan->name_count; i++)
    if (packbuf_i_compare_nodes(plan, &plan->names[i - 1], &plan->names[i]) == 0)
      return packbuf_i_plan_fail(plan, plan->nodes[plan->names[i]], PACKBUF_DUPLICATE_NAME, "two fields have this name",
                                 PACKBUF_NOWHERE);
  return PACKBUF_OK;
}

/* The node that a path names: its index, or UINT32_MAX. `near`: where it may well be, or soon after. */
static uint32_t packbuf_i_resolve(const packbuf_i_plan *plan, unsigned scope, const char *path, uint32_t near) {
  if (near >= plan->node_count) near = 0;
  for (uint32_t k = 0; k < plan->node_count; k++) {
    const uint32_t left = plan->node_count - near, i = k < left ? near + k : k - left;
    const char *rest = plan->nodes[i]->scope == scope ? packbuf_i_path_skip(plan->nodes[i], path) : NULL;
    if (rest && *rest == 0) return i;
  }
  return UINT32_MAX;
}

/* Schema entries that nobody would notice to do nothing: of paths that the batch does not have, and of attributes of
 * media. A manifest has fields of its own, whatever the options were made for. */
static packbuf_status packbuf_i_check_schema_paths(const packbuf_i_plan *plan) {
  uint32_t near = 0;
  for (size_t i = 0; i < plan->options->schema_count && plan->kind == 1; i++) {
    const packbuf_schema *schema = &plan->options->schemas[i];
    const uint32_t node = schema->path ? packbuf_i_resolve(plan, schema->batch_value, schema->path, near) : UINT32_MAX;
    if (node != UINT32_MAX) {
      const packbuf_i_node *parent = plan->nodes[node]->parent;
      near = node;
      if (!parent || parent->kind != PACKBUF_LEAF) continue;
      return packbuf_i_field_fail(plan->error, PACKBUF_INVALID_ARGUMENT,
                                  "a schema names an attribute of media, which is kept as it is: name the media",
                                  schema->path, PACKBUF_NOWHERE);
    }
    if (!schema->path || schema->flags & PACKBUF_IF_PRESENT) continue;
    return packbuf_i_field_fail(plan->error, PACKBUF_NOT_FOUND,
                                schema->batch_value
                                    ? "a schema names a batch value that does not exist (misspelt? else say if_present)"
                                    : "a schema names a field that does not exist (misspelt? else say if_present)",
                                schema->path, PACKBUF_NOWHERE);
  }
  return PACKBUF_OK;
}

/* The pairs of the batch and their nodes, in the order they were given; room for as many behind them. */
static packbuf_status packbuf_i_plan_pairs(packbuf_i_plan *plan, const packbuf_batch *batch, packbuf_i_pair **pairs,
                                           uint32_t *nodes) {
  uint32_t found = 0;
  plan->pair_count = 0;
  for (packbuf_i_pair *pair = batch->pairs; pair; pair = pair->next) {
    const uint32_t node = pair->path ? packbuf_i_resolve(plan, 0, pair->path, found) : UINT32_MAX;
    if (node != UINT32_MAX) found = node;
    if (pair->path && node == UINT32_MAX && pair->yields) continue;
    if (pair->path && node == UINT32_MAX)
      return packbuf_i_field_fail(plan->error, PACKBUF_NOT_FOUND, "metadata names a field that does not exist",
                                  pair->path, PACKBUF_NOWHERE);
    pairs[plan->pair_count] = pair;
    nodes[plan->pair_count++] = node;
  }
  plan->pairs = pairs;
  plan->pair_nodes = nodes;
  return PACKBUF_OK;
}

/* Leaves one pair of each node and key in the sorted list, and of those that yield the first; *kept: how many. */
static packbuf_status packbuf_i_plan_yield(const packbuf_i_plan *plan, uint32_t *list, uint32_t *kept) {
  *kept = 0;
  for (uint32_t i = 0; i < plan->pair_count; i++) {
    const packbuf_i_pair *pair = plan->pairs[list[i]];
    if (!*kept || packbuf_i_compare_pairs(plan, &list[*kept - 1], &list[i]) != 0) {
      list[(*kept)++] = list[i];
    } else if (!pair->yields) {
      if (!plan->pairs[list[*kept - 1]]->yields)
        return packbuf_i_field_fail(plan->error, PACKBUF_DUPLICATE_NAME, "a metadata key is given twice",
                                    pair->path ? pair->path : "", PACKBUF_NOWHERE);
      list[*kept - 1] = list[i];
    }
  }
  return PACKBUF_OK;
}

static packbuf_status packbuf_i_plan_metadata(packbuf_i_plan *plan, const packbuf_batch *batch) {
  uint32_t count = 0, kept = 0, *list, *nodes;
  packbuf_i_pair **pairs;
  packbuf_status status;
  for (const packbuf_i_pair *pair = batch->pairs; pair; pair = pair->next) count++;
  if (!count) return PACKBUF_OK;
  if (count > 65536)
    return packbuf_i_plan_fail(plan, NULL, PACKBUF_LIMIT, "more than 65536 metadata pairs", PACKBUF_NOWHERE);
  pairs = (packbuf_i_pair **)packbuf_arena_alloc(plan->arena, count * 2 * sizeof *pairs, 8);
  list = (uint32_t *)packbuf_arena_alloc(plan->arena, count * 4 * sizeof *list, sizeof *list);
  if (!pairs || !list) return packbuf_i_plan_no_memory(plan);
  nodes = list + 2 * count;
  status = packbuf_i_plan_pairs(plan, batch, pairs, nodes);
  if (status != PACKBUF_OK) return status;
  for (uint32_t i = 0; i < plan->pair_count; i++) list[i] = i;
  list =
      (uint32_t *)packbuf_i_sort(list, list + count, plan->pair_count, sizeof *list, packbuf_i_compare_pairs, plan);
  status = packbuf_i_plan_yield(plan, list, &kept);
  if (status != PACKBUF_OK) return status;
  for (uint32_t i = 0; i < kept; i++) { /* in order, behind those that list refers to */
    pairs[count + i] = pairs[list[i]];
    nodes[count + i] = nodes[list[i]];
  }
  plan->pairs = pairs + count;
  plan->pair_nodes = nodes + count;
  plan->pair_count = kept;
  return PACKBUF_OK;
}

/* ---- where everything lies ---- */

static packbuf_status packbuf_i_plan_head(packbuf_i_plan *plan) {
  uint64_t strings = 0;
  for (uint32_t i = 0; i < plan->node_count; i++) {
    const packbuf_i_node *node = plan->nodes[i];
    strings += node->name_size + node->parameter_size + (node->codec == PACKBUF_CODEC_NDARRAY ? 8u * node->rank : 0);
  }
  for (uint32_t i = 0; i < plan->pair_count; i++) strings += plan->pairs[i]->key_size + plan->pairs[i]->text_size;
  if (strings >> 32)
    return packbuf_i_plan_fail(plan, NULL, PACKBUF_LIMIT, "names and metadata take 2^32 bytes or more",
                               PACKBUF_NOWHERE);
  if (plan->buffer_count > (1u << 22))
    return packbuf_i_plan_fail(plan, NULL, PACKBUF_LIMIT, "more than 2^22 buffers", PACKBUF_NOWHERE);
  plan->strings_length = strings;
  plan->head_length = packbuf_i_round_up(128 + 64 * (uint64_t)plan->node_count + 64 * (uint64_t)plan->buffer_count +
                                             32 * (uint64_t)plan->pair_count + 4 * (uint64_t)plan->name_count + strings,
                                         plan->options->alignment_exponent);
  return PACKBUF_OK;
}

/* Gives each data buffer its place in the section: the plain ones first, then the packed ones, each with the room that
 * it would take plain. */
static packbuf_status packbuf_i_place_data(packbuf_i_plan *plan) {
  uint64_t data = 0;
  for (unsigned packed = 0; packed < 2; packed++) {
    for (uint32_t i = 0; i < plan->buffer_count; i++) {
      packbuf_i_planned *buffer = &plan->buffers[i];
      if (buffer->storage != PACKBUF_STORED || buffer->role != PACKBUF_ROLE_DATA || buffer->packing != packed) continue;
      buffer->offset = data;
      data = packbuf_i_round_up(data + buffer->plain, plan->options->alignment_exponent);
      if (data >> 61)
        return packbuf_i_plan_fail(plan, buffer->node, PACKBUF_LIMIT, "the batch is too large", PACKBUF_NOWHERE);
    }
    if (!packed) plan->plain_length = data;
  }
  plan->data_length = plan->data_bound = data;
  return PACKBUF_OK;
}

/* The same for the index: block headers and buffers, behind the checksums. */
static packbuf_status packbuf_i_place_index(packbuf_i_plan *plan) {
  const unsigned exponent = plan->options->alignment_exponent;
  uint64_t index = packbuf_i_round_up(4 * plan->checksums, exponent);
  for (uint32_t i = 0; i < plan->buffer_count; i++) {
    packbuf_i_planned *buffer = &plan->buffers[i];
    if (buffer->storage != PACKBUF_STORED) continue;
    if (buffer->packing) {
      buffer->headers_offset = plan->head_length + index;
      index = packbuf_i_round_up(index + 16 * buffer->blocks, exponent);
    }
    if (buffer->role == PACKBUF_ROLE_DATA) continue;
    buffer->offset = plan->head_length + index;
    index = packbuf_i_round_up(index + buffer->length, exponent);
    if (index >> 61)
      return packbuf_i_plan_fail(plan, buffer->node, PACKBUF_LIMIT, "the batch is too large", PACKBUF_NOWHERE);
  }
  plan->index_length = index;
  return PACKBUF_OK;
}

/* Once the packed data are written, their section has this length. */
static void packbuf_i_set_data_length(packbuf_i_plan *plan, uint64_t length) {
  plan->data_length = length;
  plan->total_length = plan->head_length + plan->index_length + length;
}

static packbuf_status packbuf_i_place_buffers(packbuf_i_plan *plan) {
  packbuf_status status = packbuf_i_place_data(plan);
  for (uint32_t i = 0; i < plan->buffer_count; i++) plan->packed |= plan->buffers[i].packing;
  plan->checksums = plan->options->data_checksums ? packbuf_i_chunks(plan->data_length) : 0;
  if (!status) status = packbuf_i_place_index(plan);
  if (status) return status;
  plan->total_length = plan->bound = plan->head_length + plan->index_length + plan->data_length;
  for (uint32_t i = 0; i < plan->buffer_count; i++) {
    packbuf_i_planned *buffer = &plan->buffers[i];
    if (buffer->storage == PACKBUF_STORED && buffer->role == PACKBUF_ROLE_DATA)
      buffer->room = buffer->offset += plan->head_length + plan->index_length;
  }
  return PACKBUF_OK;
}

/* The plan of a batch: made once, kept until something is added. */
static packbuf_status packbuf_i_make_plan(packbuf_batch *batch, packbuf_error *error) {
  packbuf_error local; /* so that what lies below always has one to take messages from */
  packbuf_status status;
  packbuf_i_plan *plan;
  if (batch->plan) return PACKBUF_OK;
  plan = (packbuf_i_plan *)packbuf_arena_alloc(batch->arena, sizeof *plan, 8);
  if (!plan) return packbuf_i_no_memory(error);
  memset(plan, 0, sizeof *plan);
  plan->arena = batch->arena;
  plan->options = &batch->options;
  plan->error = error ? error : &local;
  plan->rows = batch->rows;
  plan->kind = batch->kind ? batch->kind : 1;
  status = packbuf_i_plan_nodes(plan, batch);
  if (!status) status = packbuf_i_check_schema_paths(plan);
  if (!status) status = packbuf_i_plan_names(plan);
  if (!status) status = packbuf_i_plan_metadata(plan, batch);
  if (!status) status = packbuf_i_start_prints(plan);
  for (uint32_t i = 0; !status && i < plan->buffer_count; i++) status = packbuf_i_choose_storage(plan, i);
  if (!status) status = packbuf_i_plan_head(plan);
  if (!status) status = packbuf_i_plan_packing(plan);
  if (!status) status = packbuf_i_place_buffers(plan);
  if (!status) batch->plan = plan;
  return status;
}
