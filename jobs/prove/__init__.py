"""The proof: is a mixture better than its best member, than that member sampled as often, than picking?

`work` answers the questions in each way and has them judged. `reader` reads the answers from the run,
`facts` makes the figures, `words` says what the figures mean, and `page` writes all of it for people
who know no statistics.
"""
