"""packbuf in Mooncake: a structured-object store that keeps a batch in one object. README.md has a tour."""

from packbuf_mooncake.pool import Pool
from packbuf_mooncake.refs import Part, Ref, export_ref, import_ref
from packbuf_mooncake.sections import FieldSchema
from packbuf_mooncake.structured_store import StructuredStore
from packbuf_mooncake.wanted import GetOptions

__all__ = ["FieldSchema", "GetOptions", "Part", "Pool", "Ref", "StructuredStore", "export_ref", "import_ref"]
