{{ config(post_hook=[
    {"sql": "SELECT * FROM jammi_generate('{{ this }}', 'body', 'id')", "transaction": false},
    {"sql": "{{ jammi_follow(this) }}", "transaction": false},
]) }}

SELECT id, opened, body
FROM {{ ref('tickets') }}
WHERE body IS NOT NULL
