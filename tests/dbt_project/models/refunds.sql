{{ config(materialized='view') }}

SELECT id, body, _similarity AS similarity
FROM jammi_search('{{ ref('searchable_tickets') }}', 'I want my money back', 3)
