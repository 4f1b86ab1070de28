SELECT a.id, b.id AS other, array_cosine_similarity(a.vector, b.vector) AS similarity
FROM {{ ref('ticket_vectors') }} a JOIN {{ ref('ticket_vectors') }} b ON a.id < b.id
WHERE similarity > 0.3
