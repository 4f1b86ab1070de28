{{ config(post_hook="SELECT * FROM jammi_sync('{{ this }}', 'log', 'week', passages := {'tokens': 40, 'by': 'sentence'})") }}

SELECT date_trunc('week', opened)::DATE AS week, string_agg(body, E'\n\n' ORDER BY id) AS log
FROM {{ ref('tickets') }}
GROUP BY week
