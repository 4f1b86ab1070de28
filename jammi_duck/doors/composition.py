"""Assembles an engine from its parts, for any host that runs its SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jammi_duck.config.options import Config
from jammi_duck.encoder import Encoders
from jammi_duck.encoder.engines import Engines, Wanted
from jammi_duck.encoder.images.places import PictureLimits
from jammi_duck.encoder.loaded import LoadedEncoders
from jammi_duck.encoder.waits import INTERRUPTS
from jammi_duck.retrieval.selection import Selections
from jammi_duck.sql import sql
from jammi_duck.storage.tables.catalog import EXPECTED, SCHEMA, Catalog
from jammi_duck.storage.tables.embedding_tables import EmbeddingTables
from jammi_duck.storage.tables.followed import FollowedSources
from jammi_duck.storage.tables.impostors import refuse_macros, refuse_tables
from jammi_duck.storage.tables.recovery import finish_drops
from jammi_duck.storage.tables.views import has_schema, views_of
from jammi_duck.storage.tables.watch import Watch
from jammi_duck.types import Host
from jammi_duck.udfs.engine import Engine
from jammi_duck.udfs.filters.conditions import Conditions
from jammi_duck.udfs.macros import reserved
from jammi_duck.udfs.secrets import bearer_token
from jammi_duck.work.freshen import Freshener
from jammi_duck.work.generate import Generator
from jammi_duck.work.importing import Importer
from jammi_duck.work.index_words import WordsIndexer
from jammi_duck.work.interrupts import listen
from jammi_duck.work.jobs import Jobs
from jammi_duck.work.refresh import Refresher


def engines(config: Config) -> Engines:
    """Which engine computes a model, with the options of the configuration."""
    return Engines(Wanted(config.engine, config.precision, config.threads, config.device, config.gpu_memory))


def loaded_encoders(config: Config) -> LoadedEncoders:
    """The models of this process, with the options of the configuration."""
    return LoadedEncoders(
        config.batch_size,
        config.max_loaded_models,
        config.precision,
        config.threads,
        config.device,
        config.gpu_memory,
        config.models_path,
        config.wrappers,
        config.providers,
        config.foreign_providers,
        config.vectors_path,
        config.modules,
        PictureLimits.of(config),
        config.engine,
    )


def open_engine(
    host: Host,
    config: Config,
    encoders: Encoders,
    ended: Callable[[], Sequence[str]] = list,
    opened: Callable[[EmbeddingTables], None] = lambda tables: None,
) -> Engine:
    """Open the catalog and the location, settle what a dead process left, and find tables that the catalog lacks.

    `ended` returns each ended session once. `opened` is called when the location is known, before views over its files
    are created.

    Raises:
        ModelError: a model of `preload_models` is not available.
        StorageError: the location cannot be read.
    """
    listen(INTERRUPTS)
    encoders.use_secrets(lambda url: bearer_token(host, url))
    for model in config.preload_models:
        encoders.get(model)
    catalog = _open_catalog(host)
    tables = EmbeddingTables(
        catalog,
        config.storage,
        cache_dir=config.cache_dir,
        segment_rows=config.segment_rows,
        retention=config.retention,
        watch=Watch(config.follow),
        options=config.storage_options,
    )
    selections = Selections(tables)

    def release() -> Sequence[str]:
        sessions = ended()
        tables.pins.release_sessions(sessions)
        selections.drop(sessions)
        return sessions

    jobs = Jobs(tables, release)
    opened(tables)
    jobs.settle()
    finish_drops(tables)
    jobs.follow()
    refresher = Refresher(tables, encoders, jobs)
    return Engine(
        host,
        tables,
        encoders,
        jobs,
        Generator(tables, encoders, jobs),
        refresher,
        Freshener(host, tables, jobs, refresher),
        FollowedSources(host, catalog, host.home()),
        Importer(tables, encoders, jobs),
        WordsIndexer(tables, jobs),
        selections,
        Conditions(host, lambda model: _is_known(model, config, encoders, catalog)),
        config.model,
    )


def _is_known(model: str, config: Config, encoders: Encoders, catalog: Catalog) -> bool:
    """Whether a model is the default, or the model of an embedding table."""
    used = {
        config.model,
        *(entry.definition.model for entry in catalog.entries("ready") if entry.definition.has_vectors),
    }
    return any(encoders.names(model) & encoders.names(each) for each in used)


def _open_catalog(host: Host) -> Catalog:
    """The catalog in the database itself; in memory beside it, if that is read-only or has none yet."""
    text = sql("SELECT database_name, readonly FROM duckdb_databases() WHERE database_name = current_database()")
    ((database, readonly),) = host.sql(text)
    refuse_macros(host, reserved())
    refuse_tables(host, database, SCHEMA, EXPECTED)
    beside, views = views_of(host, database, readonly=readonly)
    if not readonly and has_schema(host, database, SCHEMA):
        catalog = Catalog(host, database, views)
    else:
        catalog = Catalog(host, beside, views, home=None if readonly else database)
    catalog.create()
    if readonly and not catalog.names():
        catalog.copy_ready(database)
    return catalog
