# packbuf::packbuf is an interface target: the folder of packbuf.h. Define PACKBUF_IMPLEMENTATION in one source file.
get_filename_component(packbuf_INCLUDE_DIR "${CMAKE_CURRENT_LIST_DIR}/../../../include" ABSOLUTE)
if(NOT TARGET packbuf::packbuf)
  add_library(packbuf::packbuf INTERFACE IMPORTED)
  set_target_properties(packbuf::packbuf PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${packbuf_INCLUDE_DIR}")
endif()
