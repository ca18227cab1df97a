"""The proof: is a mixture better than its best member, than that member sampled as often, than picking?

`work` answers the questions in each way and has them judged, `facts` reads the figures from the run,
`words` says what they mean, and `page` writes it for people who know no statistics.
"""
