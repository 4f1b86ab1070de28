{{ config(post_hook={
    "sql": "SELECT * FROM jammi_generate('{{ this }}', 'body', 'id')",
    "transaction": false,
}) }}

SELECT id, opened, body
FROM {{ ref('tickets') }}
WHERE body IS NOT NULL
