{{ config(materialized='incremental', unique_key='id') }}

WITH to_embed AS (
    SELECT id, body FROM {{ ref('tickets') }}
    {% if is_incremental() %}
    EXCEPT SELECT id, body FROM {{ this }}
    {% endif %}
)
SELECT id, body, embed(body)::FLOAT[384] AS vector, '{{ invocation_id }}' AS embedded_in_run
FROM to_embed
