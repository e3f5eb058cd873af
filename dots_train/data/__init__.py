"""Token shards to batches, by the global sample number g alone.

| module | what it is |
|---|---|
| `objects`, `cache`, `storage` | where the files lie: a folder, or object storage behind a cache |
| `stream` | a dataset, and its sources as streams of tokens |
| `windows`, `packing` | how a stream is divided into rows: by length, or whole documents |
| `order` | which row a sample is: a keyed bijection of each epoch |
| `batch`, `reader` | samples by g, as batches |
| `mixed` | samples of several sources, as a mixture weights them |
| `loader` | a rank's share of them, read ahead |

Needs torch, numpy and pyarrow, and for object storage obstore; knows nothing of Spark, Ray or tokenizers.
"""

from dots_train.data.batch import IGNORE, Batch
from dots_train.data.errors import DataError
from dots_train.data.loader import Loader, Share, shares
from dots_train.data.mixed import MixtureReader, open_reader
from dots_train.data.objects import StorageConfig
from dots_train.data.order import Order
from dots_train.data.packing import Packing
from dots_train.data.reader import Plan, Reader, ShardReader, one_stream
from dots_train.data.stream import Dataset, Place, Stream, open_streams
from dots_train.data.windows import Layout, Windows

__all__ = [
    "IGNORE",
    "Batch",
    "DataError",
    "Dataset",
    "Layout",
    "Loader",
    "MixtureReader",
    "Order",
    "Packing",
    "Place",
    "Plan",
    "Reader",
    "ShardReader",
    "Share",
    "StorageConfig",
    "Stream",
    "Windows",
    "one_stream",
    "open_reader",
    "open_streams",
    "shares",
]
