-- depends_on: {{ ref('ticket_embeddings') }}
SELECT q.topic, s.id, s._rank AS rank, s._similarity AS similarity
FROM {{ ref('topics') }} q, jammi_search('{{ ref('tickets') }}', q.question, 2, mode := 'vector') s
