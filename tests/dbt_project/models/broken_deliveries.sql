SELECT id, body, _similarity AS similarity
FROM jammi_search('{{ ref('searchable_tickets') }}', 'the goods were damaged on the way', 3)
