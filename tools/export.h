/* tools/export.h: a packed buffer as a folder of files.
 * May use: tool.h. Must not know: the command line. */
#ifndef PACKBUF_TOOL_EXPORT_H
#define PACKBUF_TOOL_EXPORT_H
#include "tool.h"

typedef struct export_job {
  const packbuf_view *view;
  const char *file, *folder;
  row_range rows;
  int quiet;      /* no notes on stderr */
  name_set names; /* of files, which `made` owns */
  strings made;
} export_job;

void export_columns(export_job *job, columns *list);
void export_values(export_job *job);
void export_end(export_job *job);

#endif
