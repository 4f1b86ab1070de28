{% macro drop_old_embedding_tables(results) %}
{% if results | selectattr('status', 'in', ['error', 'skipped']) | list | length == 0 %}
SELECT dropped.*
FROM (
    SELECT embedding_table
    FROM jammi_tables()
    WHERE status = 'ready'
    QUALIFY row_number() OVER (
        PARTITION BY source, columns, key, model, dimensions, split_part(embedding_table, '__embedding__', 1)
        ORDER BY started DESC
    ) > 1
) old, jammi_drop(old.embedding_table) dropped
ORDER BY ALL
{% endif %}
{% endmacro %}
