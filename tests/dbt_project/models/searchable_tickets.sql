{{ config(post_hook="SELECT * FROM jammi_sync('{{ this }}', 'body', 'id')") }}

SELECT id, opened, body
FROM {{ ref('tickets') }}
WHERE body IS NOT NULL
