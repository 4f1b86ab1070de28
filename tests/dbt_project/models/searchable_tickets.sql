{{ config(post_hook="SELECT * FROM jammi_generate('{{ this }}', 'body', 'id')") }}

SELECT id, opened, body
FROM {{ ref('tickets') }}
WHERE body IS NOT NULL
