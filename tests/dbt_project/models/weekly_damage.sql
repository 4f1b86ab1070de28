SELECT week, _passage_text AS passage, _similarity AS similarity
FROM jammi_search('{{ ref('ticket_weeks') }}', 'the goods were damaged on the way', 3, per_row := 2)
