SELECT topic, similarity
FROM {{ ref('ticket_topics') }}
WHERE rank = 1 AND similarity < 0.3
