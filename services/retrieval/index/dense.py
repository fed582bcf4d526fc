"""The vectors of one segment and the search among them, by FAISS.

A flat segment is searched exactly. An ANN index (IVF, HNSW, IVF-PQ) finds candidates, whose scores
are then computed from the vectors: every score that leaves this module is an exact inner product,
and does not depend on the batch or the segment that its vector was found in.

ANN indexes work with L2, for which vectors have to be of one length. Where they are not, they get
one more component that makes them so, and queries a zero there: the order by L2 is then the order
by inner product (Bachrach et al. 2014, "Speeding up the Xbox recommender system using a euclidean
transformation for inner-product spaces", section 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from services.retrieval.index.arrays import Arrays, read_array, read_scalar
from services.retrieval.index.filters import Mask
from services.retrieval.index.gpu import GpuFlat
from services.retrieval.index.merging import SegmentPolicy
from services.retrieval.types import IndexConfig, IndexType, Vectors

__all__ = ["DenseIndex", "Found", "exact_scores", "index_type_for"]

Rows = npt.NDArray[np.int64]
Found = tuple[Rows, Vectors]  # rows and their scores [n], best first, equal ones by row

_FAISS: Any = faiss  # its stubs do not know all that it has
_SLACK = 16  # rows taken beyond what is asked for, as FAISS's own scores are a little inexact
_TRAINING_PER_LIST = 39  # FAISS warns below
_PQ_BITS = 8
_MAX_EF_SEARCH = 4096
_ANN_CLASSES = {
    IndexType.HNSW: faiss.IndexHNSWFlat,
    IndexType.IVF: faiss.IndexIVFFlat,
    IndexType.IVF_PQ: faiss.IndexIVFPQ,
}
_BATCH_WORTH_BLAS = 3  # queries
_BATCH_WORTH_COPYING = 6
_COPIED_BLOCK = 32768  # rows
_BLOCK = 16384  # rows scored at a time
# Vectors this far from one length, relatively, count as of one length.
_SAME_LENGTH = 1e-3


def index_type_for(num_rows: int, config: IndexConfig, policy: SegmentPolicy) -> IndexType:
    """What a segment of so many rows gets: flat while it is too small for what is configured."""
    match config.type:
        case IndexType.AUTO:
            large = num_rows > policy.flat_rows
            return IndexType.HNSW if large else IndexType.FLAT
        case IndexType.FLAT:
            return IndexType.FLAT
        case IndexType.HNSW:
            needed = policy.min_ann_rows
        case IndexType.IVF:
            needed = max(policy.min_ann_rows, _TRAINING_PER_LIST * _num_lists(num_rows, config))
        case IndexType.IVF_PQ:
            lists = max(_num_lists(num_rows, config), 2**_PQ_BITS)
            needed = max(policy.min_ann_rows, _TRAINING_PER_LIST * lists)
    return config.type if num_rows >= needed else IndexType.FLAT


def exact_scores(vectors: Vectors, query: Vectors) -> Vectors:
    """Inner products `[n, d] . [d] -> [n]`.

    A row's result depends on the row and the query alone: BLAS would sum in an order that depends
    on how many rows there are.
    """
    scores = np.empty(len(vectors), dtype=np.float32)
    for first in range(0, len(vectors), _BLOCK):
        block = slice(first, first + _BLOCK)
        scores[block] = np.add.reduce(vectors[block] * query, axis=1)
    return scores


@dataclass(frozen=True, slots=True, eq=False)
class DenseIndex:
    """`storage` [num_rows, width], contiguous; columns from `dimensions` on are padding."""

    storage: Vectors
    dimensions: int
    max_length: float  # of the vectors
    type: IndexType = IndexType.FLAT
    ann: Any = None  # a faiss.Index over `storage`
    gpu: GpuFlat | None = None

    @staticmethod
    def build(vectors: Vectors, config: IndexConfig, policy: SegmentPolicy) -> DenseIndex:
        """Takes the vectors `[num_rows, dimensions]` over."""
        num_rows, dimensions = vectors.shape
        lengths = _lengths(vectors)
        max_length = float(lengths.max(initial=0.0))
        kind = index_type_for(num_rows, config, policy)
        if kind is IndexType.FLAT:
            storage = np.ascontiguousarray(vectors)
            return DenseIndex(storage, dimensions, max_length, gpu=_on_gpu(storage, policy))
        set_threads(policy.num_threads)
        padded = _of_one_length(vectors, lengths, _pad_to(kind, dimensions, config))
        ann = _new_ann(kind, padded, config)
        storage = _stored_by(ann) if kind is IndexType.HNSW else padded
        return DenseIndex(storage, dimensions, max_length, kind, ann)

    @property
    def num_rows(self) -> int:
        return len(self.storage)

    @property
    def vectors(self) -> Vectors:
        """[num_rows, dimensions], a view."""
        return self.storage[:, : self.dimensions]

    @property
    def nbytes(self) -> int:
        """Of the vectors and, by what its parts take, the ANN index."""
        own = int(self.storage.nbytes)
        match self.type:
            case IndexType.HNSW:
                hnsw = self.ann.hnsw
                return own + 4 * int(hnsw.neighbors.size()) + 12 * self.num_rows
            case IndexType.IVF | IndexType.IVF_PQ:
                return own + self.num_rows * (int(self.ann.code_size) + 8)
            case _:
                return own

    def search(
        self,
        queries: Vectors,
        num_wanted: int,
        allowed: Mask | None,
        config: IndexConfig,
        policy: SegmentPolicy,
    ) -> list[Found]:
        """The best rows for each of `queries` [num_queries, dimensions], of those allowed."""
        num_allowed = self.num_rows if allowed is None else int(np.count_nonzero(allowed))
        if not num_allowed or not len(queries):
            return [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(queries)
        set_threads(policy.num_threads)
        wide = np.zeros((len(queries), self.storage.shape[1]), dtype=np.float32)
        wide[:, : self.dimensions] = queries
        few = num_allowed <= max(policy.exact_rows, policy.exact_fraction * self.num_rows)
        if self.ann is not None and not (allowed is not None and few):
            return self._search_ann(wide, num_wanted, (allowed, num_allowed), config)
        return self._search_flat(wide, num_wanted, allowed, num_allowed)

    def scores(self, rows: Rows, query: Vectors) -> Vectors:
        return exact_scores(self.vectors[rows], query)

    def to_arrays(self, name: str) -> dict[str, npt.NDArray[Any]]:
        arrays: dict[str, npt.NDArray[Any]] = {
            f"{name}.type": np.array([list(IndexType).index(self.type)], dtype=np.int64)
        }
        if self.ann is not None:
            arrays[f"{name}.ann"] = faiss.serialize_index(self.ann)
        if self.type is not IndexType.HNSW:  # its index has them
            arrays[f"{name}.storage"] = self.storage
        return arrays

    @staticmethod
    def from_arrays(
        arrays: Arrays, name: str, shape: tuple[int, int], policy: SegmentPolicy
    ) -> DenseIndex:
        """Of `shape` = (rows, dimensions). Raises ValueError where they are no such index."""
        num_rows, dimensions = shape
        number = read_scalar(arrays, f"{name}.type")
        kinds = list(IndexType)
        if number >= len(kinds) or kinds[number] is IndexType.AUTO:
            raise ValueError(f"{name}.type: {number} is no type of index")
        kind = kinds[number]
        ann = None if kind is IndexType.FLAT else _read_ann(arrays, f"{name}.ann", kind, num_rows)
        if kind is IndexType.HNSW:
            storage = _stored_by(ann)
        else:
            storage = read_array(arrays, f"{name}.storage", np.float32, (num_rows, None))
        width = storage.shape[1]
        fits = width == dimensions if ann is None else width >= dimensions and width == ann.d
        if not fits:
            raise ValueError(f"{name}: vectors of {width} components, not of {dimensions}")
        max_length = float(_lengths(storage[:, :dimensions]).max(initial=0.0))
        gpu = _on_gpu(storage, policy) if ann is None else None
        return DenseIndex(storage, dimensions, max_length, kind, ann, gpu)

    def _search_flat(
        self, queries: Vectors, num_wanted: int, allowed: Mask | None, num_allowed: int
    ) -> list[Found]:
        fetched = min(num_wanted + _SLACK, num_allowed)
        if self.gpu is not None and allowed is None and fetched <= self.gpu.max_fetched:
            rough, rows = self.gpu.search(queries, fetched)
        else:
            rough, rows = _knn(self.storage, queries, fetched, allowed)
        found: list[Found] = []
        for query, query_rows, worst in zip(queries, rows, rough[:, -1].tolist(), strict=True):
            # FAISS pads with -1 where scores are NaN
            best_rows, scores = self._best(query, query_rows[query_rows >= 0], num_wanted)
            if fetched < num_allowed and len(scores):
                error = self._rounding_error(query)
                if scores[-1] - worst <= error:  # rows not fetched may belong among these
                    bound = float(scores[-1]) - 2 * error
                    near = self._rows_above(query, bound, allowed)
                    best_rows, scores = self._best(query, near, num_wanted)
            found.append((best_rows, scores))
        return found

    def _search_ann(
        self,
        queries: Vectors,
        num_wanted: int,
        allowed: tuple[Mask | None, int],
        config: IndexConfig,
    ) -> list[Found]:
        mask, num_allowed = allowed
        lossy = self.type is IndexType.IVF_PQ
        fetched = min(max(4 * num_wanted, 64) if lossy else num_wanted + _SLACK, num_allowed)
        share = num_allowed / self.num_rows  # a filter makes the index look at more
        if self.type is IndexType.HNSW:
            effort = int(max(config.hnsw_ef_search, fetched) / share)
            parameters: Any = _FAISS.SearchParametersHNSW(efSearch=min(effort, _MAX_EF_SEARCH))
        else:
            probes = min(math.ceil(config.num_probes / share), int(self.ann.nlist))
            made = _FAISS.IVFPQSearchParameters if lossy else _FAISS.SearchParametersIVF
            parameters = made(nprobe=probes)
        selector = _Selector(mask)  # lives as long as the search
        if selector.selector is not None:
            parameters.sel = selector.selector
        _, rows = self.ann.search(queries, fetched, params=parameters)
        return [
            self._best(query, query_rows[query_rows >= 0], num_wanted)
            for query, query_rows in zip(queries, rows, strict=True)
        ]

    def _best(self, query: Vectors, rows: Rows, num_wanted: int) -> Found:
        scores = self.scores(rows, query[: self.dimensions])
        order = np.lexsort((rows, -scores))[:num_wanted]
        return rows[order], scores[order]

    def _rounding_error(self, query: Vectors) -> float:
        """More than two computations of an inner product differ by."""
        length = float(np.linalg.norm(query)) * self.max_length
        return float(4 * np.finfo(np.float32).eps * math.sqrt(self.dimensions) * length)

    def _rows_above(self, query: Vectors, bound: float, allowed: Mask | None) -> Rows:
        """Rows whose score is above the bound: where many are equal, as copies are."""
        above = self.storage @ query >= bound
        return np.flatnonzero(above if allowed is None else above & allowed)


class _Selector:
    """Allowed rows as FAISS takes them; keeps what FAISS points into."""

    def __init__(self, allowed: Mask | None) -> None:
        self.selector: Any = None
        if allowed is not None:
            self._bits = np.packbits(allowed, bitorder="little")
            self.selector = faiss.IDSelectorBitmap(len(self._bits), faiss.swig_ptr(self._bits))


def set_threads(num_threads: int | None) -> None:
    """For searches and builds of the calling thread: OpenMP's setting is per thread."""
    if num_threads is not None:
        faiss.omp_set_num_threads(num_threads)


def _knn(storage: Vectors, queries: Vectors, k: int, allowed: Mask | None) -> tuple[Vectors, Rows]:
    """The k best of the allowed rows: scores and rows [num_queries, k].

    FAISS goes through the rows once per query, or for several queries at once by BLAS, which is
    ten times as fast for 32 but takes no selector. So then what is allowed is copied together.
    """
    if allowed is None or len(queries) < _BATCH_WORTH_COPYING:
        return _knn_of_faiss(storage, queries, k, allowed)
    found: list[tuple[Vectors, Rows]] = []
    for first in range(0, len(storage), _COPIED_BLOCK):
        rows = first + np.flatnonzero(allowed[first : first + _COPIED_BLOCK])
        if len(rows):
            scores, at = _knn_of_faiss(storage[rows], queries, min(k, len(rows)), None)
            found.append((scores, np.where(at < 0, -1, rows[at])))
    scores = np.concatenate([scores for scores, _ in found], axis=1)
    places = np.concatenate([places for _, places in found], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)


def _knn_of_faiss(
    storage: Vectors, queries: Vectors, k: int, allowed: Mask | None
) -> tuple[Vectors, Rows]:
    """What `IndexFlatIP.search` calls, without its copy of the vectors."""
    scores = np.empty((len(queries), k), dtype=np.float32)
    rows = np.empty((len(queries), k), dtype=np.int64)
    selector = _Selector(allowed)
    pointer = faiss.swig_ptr
    # Compared with queries times components. FAISS's own 128,000 is late: BLAS is faster from three
    # queries on. All threads share it; another's value changes how fast a search is, nothing else.
    _FAISS.cvar.distance_compute_blas_threshold = _BATCH_WORTH_BLAS * storage.shape[1]
    faiss.knn_inner_product(
        *(pointer(queries), pointer(storage)),
        *(storage.shape[1], len(queries), len(storage), k),
        *(pointer(scores), pointer(rows), selector.selector),
    )
    return scores, rows


def _num_lists(num_rows: int, config: IndexConfig) -> int:
    return config.num_lists or max(1, round(math.sqrt(num_rows)))


def _num_subvectors(dimensions: int, config: IndexConfig) -> int:
    """Configured, or about one for four dimensions."""
    if config.pq_num_subvectors is not None:
        return config.pq_num_subvectors
    wanted = max(1, dimensions // 4)
    return next(number for number in range(wanted, 0, -1) if dimensions % number == 0)


def _pad_to(kind: IndexType, dimensions: int, config: IndexConfig) -> int:
    """What a padded vector's width has to be a multiple of."""
    return _num_subvectors(dimensions, config) if kind is IndexType.IVF_PQ else 1


def _of_one_length(vectors: Vectors, lengths: Vectors, multiple: int) -> Vectors:
    num_rows, dimensions = vectors.shape
    longest, shortest = float(lengths.max()), float(lengths.min())
    if longest - shortest <= _SAME_LENGTH * longest:
        return np.ascontiguousarray(vectors)
    width = math.ceil((dimensions + 1) / multiple) * multiple
    padded = np.zeros((num_rows, width), dtype=np.float32)
    padded[:, :dimensions] = vectors
    padded[:, dimensions] = np.sqrt(np.maximum(longest**2 - lengths**2, 0))
    return padded


def _new_ann(kind: IndexType, vectors: Vectors, config: IndexConfig) -> Any:
    num_rows, width = vectors.shape
    if kind is IndexType.HNSW:
        ann: Any = _FAISS.IndexHNSWFlat(width, config.hnsw_m)
        ann.hnsw.efConstruction = config.hnsw_ef_construction
    else:
        lists = min(_num_lists(num_rows, config), num_rows)
        cells = faiss.IndexFlatL2(width)
        if kind is IndexType.IVF:
            ann = _FAISS.IndexIVFFlat(cells, width, lists)
        else:
            # padding keeps the width a multiple of the sub-vectors
            subvectors = _num_subvectors(width, config)
            ann = _FAISS.IndexIVFPQ(cells, width, lists, subvectors, _PQ_BITS)
        ann.train(vectors)
    ann.add(vectors)
    return ann


def _read_ann(arrays: Arrays, name: str, kind: IndexType, num_rows: int) -> Any:
    data = read_array(arrays, name, np.uint8, (None,))
    try:
        ann = faiss.deserialize_index(data)
    except (RuntimeError, MemoryError) as error:  # how FAISS says that it cannot read it
        raise ValueError(f"{name}: FAISS cannot read it") from error
    if not isinstance(ann, _ANN_CLASSES[kind]) or int(ann.ntotal) != num_rows:
        raise ValueError(f"{name}: no {kind} index of {num_rows} vectors")
    return ann


def _lengths(vectors: Vectors) -> Vectors:
    squares: Vectors = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float32)
    return np.sqrt(squares)


class _Memory:
    """Memory that another object owns, for numpy, which keeps this and so the owner alive."""

    def __init__(self, owner: Any, pointer: int, shape: tuple[int, int]) -> None:
        self._owner = owner
        self.__array_interface__ = {
            "data": (pointer, True),  # read-only
            "shape": shape,
            "typestr": "<f4",
            "version": 3,
        }


def _stored_by(ann: Any) -> Vectors:
    """The vectors inside an HNSW index, not copied."""
    flat: Any = _FAISS.downcast_index(ann.storage)
    return np.asarray(_Memory(ann, int(flat.get_xb()), (int(flat.ntotal), int(flat.d))))


def _on_gpu(storage: Vectors, policy: SegmentPolicy) -> GpuFlat | None:
    if not policy.use_gpu or len(storage) < policy.min_gpu_rows:
        return None
    return GpuFlat(storage)
