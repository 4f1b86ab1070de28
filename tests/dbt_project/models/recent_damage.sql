SELECT id, opened, _similarity AS similarity
FROM jammi_search('{{ ref('searchable_tickets') }}', 'the goods were damaged on the way', 3,
    filter := 'opened >= $since', parameters := {'since': DATE '{{ var('since', '2026-02-04') }}'})
