"""What compares the extension's declarations with DuckDB's headers: on small headers as DuckDB writes them."""

import pytest

from tools import slots

HEADER = """
//! A state; legacy naming: DuckDBSuccess = 7 in a comment
typedef enum duckdb_state { DuckDBSuccess = 0, DuckDBError = 1 } duckdb_state;
typedef enum DUCKDB_TYPE { DUCKDB_TYPE_BOOLEAN = 1, /* int8_t */ DUCKDB_TYPE_TINYINT = 2 } DUCKDB_TYPE;
typedef uint64_t idx_t;
typedef struct {
	union {
		struct {
			uint32_t length;
			char prefix[4];
			char *ptr;
		} pointer;
		struct {
			uint32_t length;
			char inlined[12];
		} inlined;
	} value;
} duckdb_string_t;
typedef struct _duckdb_vector {
	void *internal_ptr;
} * duckdb_vector;
typedef struct duckdb_list_entry duckdb_list_entry;
struct duckdb_list_entry {
	uint64_t offset;
	uint64_t length;
};
typedef void (*duckdb_delete_callback_t)(void *data);
struct duckdb_extension_access {
	//! Indicate that an error has occurred.
	void (*set_error)(duckdb_extension_info info, const char *error);
};
"""

TABLE = """
typedef struct { int unrelated; } other;
typedef struct {
#if DUCKDB_EXTENSION_API_VERSION_MINOR > 2 ||                                    \\
    (DUCKDB_EXTENSION_API_VERSION_MINOR == 2 && DUCKDB_EXTENSION_API_VERSION_PATCH >= 0) // v1.2.0
	const char *(*duckdb_library_version)();
	uint64_t *(*duckdb_vector_get_validity)(duckdb_vector vector); // a comment; with a semicolon
	duckdb_state (*duckdb_list_vector_reserve)(duckdb_vector vector,
			idx_t required_capacity);
#endif
#if DUCKDB_API_VERSION_AT_LEAST(1, 2, 0)
	void (*duckdb_wait)(void);
#endif
#if DUCKDB_API_VERSION_AT_LEAST(1, 5, 6)
	void (*duckdb_later)(idx_t *many, const char **names);
#endif
// These may be removed
#ifdef DUCKDB_EXTENSION_API_VERSION_UNSTABLE
	idx_t (*duckdb_row_count)(duckdb_result *result);
#endif
} duckdb_ext_api_v1;
"""

OURS = """
typedef uint64_t idx_t;
typedef enum { DuckDBSuccess = 0, DuckDBError = 1 } duckdb_state;
typedef enum {
    DUCKDB_TYPE_BOOLEAN = 1,
} duckdb_type;
typedef struct opaque_vector *duckdb_vector;
typedef void (*duckdb_delete_callback_t)(void *it);
/* A text of up to 12 bytes stands in the vector itself. */
typedef union {
    struct {
        uint32_t length;
        char prefix[4];
        const char *text;
    } distant;
    struct {
        uint32_t length;
        char text[12];
    } inlined;
} duckdb_string_t;
typedef struct {
    uint64_t offset, length;
} duckdb_list_entry;
struct duckdb_extension_access {
    void (*set_error)(duckdb_extension_info info, const char *error);
};
"""

SLOTS = """\
/* SLOT(place, result, name, parameters) */
SLOT(0, const char *, duckdb_library_version, (void))
SLOT(1, uint64_t *, duckdb_vector_get_validity, (duckdb_vector it))
SLOT(2, duckdb_state, duckdb_list_vector_reserve, (duckdb_vector vector, idx_t room))
SLOT(3, void, duckdb_wait, (void))
"""


def differences(folder, *, ours=OURS, declared=SLOTS, header=HEADER, table=TABLE):
    (folder / "duckdb_api.h").write_text(ours)
    (folder / "slots.h").write_text(declared)
    return list(slots.differences(slots.ours(folder), slots.theirs(header, table)))


def test_what_is_declared_alike_does_not_differ(tmp_path):
    assert differences(tmp_path) == []


def test_the_table_is_that_of_the_stable_version_that_the_extension_asks_for():
    names = [name for name, _ in slots.table(TABLE)]
    assert names == [
        "duckdb_library_version",
        "duckdb_vector_get_validity",
        "duckdb_list_vector_reserve",
        "duckdb_wait",
    ]


@pytest.mark.parametrize(
    ("line", "instead", "told"),
    [
        ("SLOT(2, duck", "SLOT(4, duck", "duckdb_list_vector_reserve: place 4"),
        ("room))", "room, idx_t more))", "(duckdb_vector, idx_t, idx_t); in DuckDB place 2"),
        (
            "(duckdb_vector it)",
            "(duckdb_vector *it)",
            "duckdb_vector_get_validity: place 1, uint64_t * (duckdb_vector *)",
        ),
        ("uint64_t *,", "const uint64_t *,", "duckdb_vector_get_validity: place 1, const uint64_t *"),
        ("duckdb_wait", "duckdb_later", "duckdb_later: not in the table of API v1.2.0"),
        ("duckdb_wait", "duckdb_row_count", "duckdb_row_count: not in the table of API v1.2.0"),
    ],
)
def test_a_slot_that_differs_is_told(tmp_path, line, instead, told):
    assert SLOTS.count(line) == 1
    (found,) = differences(tmp_path, declared=SLOTS.replace(line, instead))
    assert told in found


@pytest.mark.parametrize(
    ("line", "instead", "told"),
    [
        ("DUCKDB_TYPE_BOOLEAN = 1", "DUCKDB_TYPE_BOOLEAN = 3", "DUCKDB_TYPE_BOOLEAN: 1; in DuckDB 3"),
        ("DuckDBError = 1", "DuckDBError = 2", "DuckDBError: 1; in DuckDB 2"),
        ("char inlined[12]", "char inlined[16]", "struct {uint32_t; char[16]}}"),
        ("char *ptr;", "uint32_t ptr;", "char[4]; uint32_t}"),
        (
            "\tuint64_t length;\n};",
            "\tuint64_t length;\n\tbool sorted;\n};",
            "duckdb_list_entry: struct {uint64_t; uint64_t}",
        ),
        ("uint64_t idx_t", "uint32_t idx_t", "idx_t: uint64_t; in DuckDB uint32_t"),
        ("} * duckdb_vector;", "} duckdb_vector;", "duckdb_vector: a pointer; in DuckDB none"),
        ("(void *data)", "(void *data, idx_t size)", "duckdb_delete_callback_t: void (void *)"),
        ("const char *error);\n};", "idx_t error);\n};", "duckdb_extension_access"),
    ],
)
def test_a_type_that_differs_is_told(tmp_path, line, instead, told):
    assert HEADER.count(line) == 1
    (found,) = differences(tmp_path, header=HEADER.replace(line, instead))
    assert told in found


@pytest.mark.parametrize(
    ("line", "instead", "told"),
    [
        ("#ifdef DUCKDB_EXTENSION_API_VERSION_UNSTABLE", "#ifdef DUCKDB_SOMETHING", "cannot be judged"),
        ("void (*duckdb_wait)(void);", "int duckdb_wait;", "1 members of the table cannot be read"),
        ("duckdb_ext_api_v1", "duckdb_ext_api_v2", "no table"),
    ],
)
def test_a_header_that_cannot_be_read_is_refused(line, instead, told):
    with pytest.raises(SystemExit, match=told):
        slots.table(TABLE.replace(line, instead))


def test_a_slot_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="a SLOT that cannot be read"):
        differences(tmp_path, declared=SLOTS.replace("3, void", "three, void"))


def test_all_that_the_extension_declares_is_compared():
    found = slots.ours()
    assert set(found.structs) == set(slots.STRUCTS)
    assert set(found.callbacks) == {"duckdb_delete_callback_t", "duckdb_scalar_function_t"}
    assert "duckdb_logical_type" in found.handles
    assert {"DUCKDB_TYPE_STRUCT", "DuckDBError"} <= set(found.numbers)
    assert found.slots["duckdb_connect"] == (3, "duckdb_state (duckdb_database, duckdb_connection *)")
